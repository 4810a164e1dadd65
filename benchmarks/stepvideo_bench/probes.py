"""What this device can do: the fastest matrix product and the fastest copy, on the spot."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from stepvideo_bench.timing import Effort, Timing, cache_bytes, interleaved
from stepvideo_core.dispatch import ANY_DEVICE, BackendRegistry
from stepvideo_core.ops import LINEAR, LinearSite
from stepvideo_core.ops.cost import Cost

_CPU_SIZE, _DEVICE_SIZE = 1024, 8192


@dataclass(frozen=True)
class Ceilings:
    """Denominators of every percentage: rates that something on this device has reached.

    samples: seconds of the two probes, so that two runs can tell whether the machine changed.
    """

    flops_per_second: float
    bytes_per_second: float
    gemm: str
    gemm_samples: tuple[float, ...]
    copy_samples: tuple[float, ...]

    def seconds(self, cost: Cost) -> float:
        """The least time for a cost at these rates."""
        return cost.roof_seconds(self.flops_per_second, self.bytes_per_second)

    def bound(self, cost: Cost) -> str:
        """`compute` or `memory`, whichever the roof is made of."""
        by_compute = cost.flops / self.flops_per_second
        return "compute" if by_compute > cost.num_bytes / self.bytes_per_second else "memory"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def measure_ceilings(
    registry: BackendRegistry,
    device: torch.device,
    dtype: torch.dtype,
    effort: Effort = Effort(repeats=9, seconds=2.0),  # noqa: B008 - immutable
) -> Ceilings:
    """Probe a device in a dtype.

    The product is tried with torch and with every `linear` of the loaded backends, and the fastest
    is the ceiling: no implementation may look good against a slow library.
    """
    size = _size(device)
    products = _products(registry, device, dtype)
    timings = interleaved(products, [_factors(size, device, dtype)], device, effort)
    # The least time, not the median: a ceiling is what was reached at all.
    best = min(timings, key=lambda name: min(timings[name].samples))
    num_bytes, copy = _timed_copy(device, effort)
    return Ceilings(
        flops_per_second=2 * size**3 / min(timings[best].samples),
        bytes_per_second=num_bytes / min(copy.samples),
        gemm=best,
        gemm_samples=timings[best].samples,
        copy_samples=copy.samples,
    )


def probed_again(
    ceilings: Ceilings,
    registry: BackendRegistry,
    device: torch.device,
    dtype: torch.dtype,
    effort: Effort,
) -> Ceilings:
    """The same two probes at another time: one more sample of each, and the better of the rates."""
    size = _size(device)
    product = _products(registry, device, dtype)[ceilings.gemm]
    factors = [_factors(size, device, dtype)]
    gemm = interleaved({"gemm": product}, factors, device, effort)["gemm"]
    num_bytes, copy = _timed_copy(device, effort)
    return replace(
        ceilings,
        flops_per_second=max(ceilings.flops_per_second, 2 * size**3 / min(gemm.samples)),
        bytes_per_second=max(ceilings.bytes_per_second, num_bytes / min(copy.samples)),
        gemm_samples=(*ceilings.gemm_samples, gemm.median),
        copy_samples=(*ceilings.copy_samples, copy.median),
    )


def _size(device: torch.device) -> int:
    return _CPU_SIZE if device.type == "cpu" else _DEVICE_SIZE


def _factors(size: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    a, b = (torch.randn(size, size).to(device, dtype) for _ in range(2))
    return a, b


def _timed_copy(device: torch.device, effort: Effort) -> tuple[int, Timing]:
    """Bytes read and written by one copy, and its timing."""
    source = torch.empty(max(4 * cache_bytes(device), 1 << 27), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = interleaved({"copy": _copy}, [(target, source)], device, effort)["copy"]
    return 2 * source.numel(), copy


def _copy(target: Tensor, source: Tensor) -> None:
    target.copy_(source)


def _products(
    registry: BackendRegistry, device: torch.device, dtype: torch.dtype
) -> dict[str, Callable[[Tensor, Tensor], object]]:
    """Everything here that multiplies matrices, by name."""
    size = _size(device)
    site = LinearSite(name="probe", in_features=size, out_features=size, device=device, dtype=dtype)
    found: dict[str, Callable[[Tensor, Tensor], object]] = {"torch": lambda a, b: a @ b}
    for backend in registry:
        if backend.device_type in (ANY_DEVICE, device.type):
            for impl in registry.implementations(backend.name):
                if impl.op is LINEAR and not impl.why_not(site):
                    found[f"{backend.name}:{impl.name}"] = functools.partial(impl.fn, bias_O=None)
    return found
