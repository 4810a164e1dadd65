"""Timing and probes for `device_check`: medians with a cold cache, and what the device can do."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from stepvideo_core.dispatch import Backend

Row = dict[str, Any]


@dataclass(kw_only=True)
class Bench:
    """One run of the check: the device, the sizes, the deadline, and the rates measured first.

    backend: name of the backend under test. real: official sizes; otherwise sizes that a CPU does
    in seconds.
    copy_rate, product_rate: bytes and bf16 operations per second; 0 until probed.
    """

    device: torch.device
    backend: str
    real: bool
    deadline: float
    seconds_per_row: float = 0.4
    copy_rate: float = 0.0
    product_rate: float = 0.0
    _flush: torch.Tensor | None = field(default=None, repr=False)

    @property
    def time_left(self) -> float:
        return self.deadline - time.monotonic()

    def measure(self, call: Callable[[], object]) -> float:
        """Seconds of a call: median of 3 to 50 runs behind one warm-up, second-level cache cold.

        Not `real`: of one run, cold in every way.
        """
        if not self.real:
            return self._once(call)
        call()
        self.synchronize()
        times: list[float] = []
        started = time.monotonic()
        while len(times) < 3 or (
            len(times) < 50 and time.monotonic() - started < self.seconds_per_row
        ):
            times.append(self._once(call))
        return statistics.median(times)

    def _once(self, call: Callable[[], object]) -> float:
        if self.device.type == "cpu":
            before = time.perf_counter()
            call()
            return time.perf_counter() - before
        if self._flush is None:  # larger than any second-level cache so far
            self._flush = torch.empty(256 << 20, dtype=torch.int8, device=self.device)
        self._flush.zero_()
        begin, end = (torch.Event(self.device, enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3

    def synchronize(self) -> None:
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)

    def peak_memory(self, call: Callable[[], object]) -> int:
        """Bytes allocated at most during a call, what was there before included; on the CPU 0."""
        if self.device.type == "cpu":
            return 0
        torch.accelerator.empty_cache()
        torch.accelerator.reset_peak_memory_stats(self.device)
        call()
        self.synchronize()
        return int(torch.accelerator.max_memory_allocated(self.device))


def _copy(num_bytes: int, device: torch.device) -> Callable[[], object]:
    source = torch.empty(num_bytes, dtype=torch.int8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def probe(bench: Bench) -> list[Row]:
    """What a plain copy and a plain matrix product reach here: the denominators of the report."""
    num_bytes, size = (4 << 30, 8192) if bench.real else (1 << 22, 128)
    bench.copy_rate = 2 * num_bytes / bench.measure(_copy(num_bytes, bench.device))
    a, b = torch.randn(2, size, size, device=bench.device).bfloat16()
    bench.product_rate = 2 * size**3 / bench.measure(lambda: a @ b)
    return [
        {"probe": "copy", "bytes": 2 * num_bytes, "GB/s": bench.copy_rate / 1e9},
        {"probe": "bf16 matmul", "size": size, "TFLOP/s": bench.product_rate / 1e12},
    ]


def environment(device: torch.device, backend: Backend) -> Row:
    """Everything that a number depends on."""
    row: Row = {"torch": torch.__version__, "cuda": torch.version.cuda, "device": "cpu"}
    row |= {"backend": backend.name, "describe": backend.describe(), "sets": backend.settings()}
    try:
        import triton

        row["triton"] = triton.__version__
    except Exception as error:  # noqa: BLE001 - a broken install is itself a finding
        row["triton"] = f"{type(error).__name__}: {error}"
    if device.type == "npu":
        row["device"] = torch.get_device_module(device).get_device_name(device)
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        row |= {
            "device": properties.name,
            "compute capability": f"{properties.major}.{properties.minor}",
            "memory GiB": round(properties.total_memory / 2**30, 1),
            "multiprocessors": properties.multi_processor_count,
            "cudnn": torch.backends.cudnn.version(),
        }
    return row
