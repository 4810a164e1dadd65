"""Measuring groups of `bench ops`: everything is tried once, then timed in passes over all of it.

The samples of a row that follow one another share whatever else the machine does at that moment,
so they say nothing about the next run. Samples of different passes lie seconds apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from stepvideo_bench.baselines import COMPILED
from stepvideo_bench.calls import Call
from stepvideo_bench.footprint import workspace_bytes
from stepvideo_bench.host import peak_of_call
from stepvideo_bench.inputs import copies, make_arguments
from stepvideo_bench.ops import Group, OpsRequest
from stepvideo_bench.oracle import Truth, find_truth
from stepvideo_bench.probes import Ceilings
from stepvideo_bench.rows import Row
from stepvideo_bench.timing import Effort, Timing, interleaved, is_cold, sets_for_cold_cache
from stepvideo_core.dispatch import BackendRegistry
from stepvideo_core.memory.estimate import available_memory
from stepvideo_core.memory.units import format_bytes
from stepvideo_core.testing.parity import eager_of

# Kept free of a measurement: other processes, and pages that torch's allocator holds back.
_SPARE = 0.8
_ROTATION_SHARE = 0.25
# With fewer samples an interval of the median is none.
MIN_PASSES = 5


class GroupTrial:
    """One group in the course of a run: which candidates work, and their samples so far.

    Whatever one candidate does, the others are measured.
    """

    def __init__(
        self,
        group: Group,
        request: OpsRequest,
        registry: BackendRegistry,
        device: torch.device,
        ceilings: Ceilings,
    ) -> None:
        """Calls every candidate that is not refused, and checks its result."""
        self.group, self.device = group, device
        self._effort = Effort(
            repeats=request.repeats, seconds=request.seconds / request.passes, min_samples=1
        )
        self._seconds = request.seconds
        self._definition = _definition(registry, group.call)
        self._rows: dict[str, Row] = {}
        self._runnable: dict[str, Callable[..., Any]] = {}
        self._samples: dict[str, list[float]] = {}
        self._spent: dict[str, float] = {}
        self._num_sets = 1
        reason = _too_large(group.call, device, ceilings, request.row_seconds)
        if reason:
            for candidate in group.candidates:
                row = replace(self._blank, impl=candidate.address)
                self._rows[row.impl] = replace(row, reasons=candidate.reasons or (reason,))
            return
        self._try_all(registry)
        if request.cache == "cold":
            spare = int(available_memory(device) * _ROTATION_SHARE)
            self._num_sets = sets_for_cold_cache(group.call.num_bytes, device, spare)

    def take_pass(self) -> None:
        """One more sample of every candidate that works and is not out of time."""
        active = {
            address: fn
            for address, fn in self._runnable.items()
            if len(self._samples[address]) < MIN_PASSES or self._spent[address] < self._seconds
        }
        if not active:
            return
        # Made anew: where in memory they lie is chance, too.
        arguments = copies(make_arguments(self.group.call, self.device), self._num_sets)
        with torch.no_grad():
            timings = interleaved(active, arguments, self.device, self._effort)
        for address, timing in timings.items():
            self._samples[address].append(timing.median)
            self._spent[address] += timing.median * len(timing.samples)

    def rows(self, ceilings: Ceilings) -> list[Row]:
        """One row per candidate, of all passes taken, in shares of these ceilings."""
        timings = {name: Timing(tuple(taken)) for name, taken in self._samples.items() if taken}
        reference = timings.get(self._definition)
        cost = self.group.call.cost
        finished = []
        for address, row in self._rows.items():
            row = replace(row, bound=ceilings.bound(cost), roof_s=ceilings.seconds(cost))
            if address in timings:
                cold = is_cold(self.group.call.num_bytes, self._num_sets, self.device)
                row = replace(_with_timing(row, timings[address], reference), cold=cold)
            finished.append(row)
        return finished

    @property
    def _blank(self) -> Row:
        call = self.group.call
        return Row(
            op=call.op.name,
            site=call.site.name,
            preset=self.group.preset,
            tokens=self.group.tokens,
            shape=call.shape,
            count=self.group.count,
            impl="",
            dtype=str(call.specs[0].dtype).removeprefix("torch."),
            device=str(self.device),
            status="skipped",
            flops=call.cost.flops,
            num_bytes=call.cost.num_bytes,
            bound="",
            roof_s=0.0,
        )

    def _try_all(self, registry: BackendRegistry) -> None:
        arguments = make_arguments(self.group.call, self.device)
        truth = find_truth(registry, self.group.call, arguments, self.device)
        for candidate in self.group.candidates:
            row = replace(
                self._blank,
                impl=candidate.address,
                reasons=candidate.reasons,
                planned=candidate.address == self.group.planned,
            )
            if candidate.fn is not None:
                row = _tried(row, candidate.fn, self.group.call, arguments, truth, self.device)
                if row.status == "measured":
                    self._runnable[row.impl] = candidate.fn
                    self._samples[row.impl], self._spent[row.impl] = [], 0.0
            self._rows[row.impl] = row


def _definition(registry: BackendRegistry, call: Call) -> str:
    fallback = next(backend.name for backend in registry if backend.fallback)
    return f"{fallback}:{eager_of(registry, call.op.name).name}"


def _too_large(
    call: Call, device: torch.device, ceilings: Ceilings, row_seconds: float
) -> str | None:
    """Why no implementation at all can be measured at this size, with a number."""
    free = int(available_memory(device) * _SPARE)
    least = call.num_bytes + call.cost.num_bytes
    if least > free:
        return (
            f"its arguments and results need {format_bytes(least)}, and {device} has "
            f"{format_bytes(free)} to give"
        )
    seconds = ceilings.seconds(call.cost)
    if seconds > row_seconds:
        return (
            f"one call takes {seconds:.0f} s at this device's full rate; --row-seconds "
            f"{seconds * 2:.0f} allows it"
        )
    return None


def _tried(
    row: Row,
    fn: Callable[..., Any],
    call: Call,
    arguments: tuple[Any, ...],
    truth: Truth,
    device: torch.device,
) -> Row:
    """Run once: does it fit, does it work, how far off is it, what does it take?"""
    free = int(available_memory(device) * _SPARE)
    # An accelerator says when it is out of memory; the host ends the process.
    if device.type == "cpu" and row.impl != COMPILED:
        need = workspace_bytes(fn, call)
        if need > free:
            reason = f"it needs {format_bytes(need)} of scratch, and there are {format_bytes(free)}"
            return replace(row, reasons=(reason,))
    try:
        with torch.no_grad():
            fn(*arguments)  # what is compiled or tuned on the first call must not count
            result, peak = peak_of_call(fn, arguments, device)
    except torch.OutOfMemoryError:
        return replace(row, reasons=(f"out of memory with {format_bytes(free)} free",))
    # Somebody's kernel may fail in any way; that is a finding about this row, and the other rows
    # must not be lost with it.
    except Exception as error:  # noqa: BLE001
        text = f"{type(error).__name__}: {str(error).strip() or 'no message'}".splitlines()[0]
        return replace(row, status="failed", reasons=(text[:300],))
    errors = truth.error(result)
    row = replace(row, status="measured", peak_bytes=peak, oracle=truth.how)
    if errors is not None:
        row = replace(row, max_abs_error=errors[0], rel_error=errors[1])
    return row


def _with_timing(row: Row, timing: Timing, reference: Timing | None) -> Row:
    median = timing.median
    share = 100 * row.roof_s / median
    return replace(
        row,
        samples=timing.samples,
        median_s=median,
        p20_s=timing.quantile(0.2),
        p80_s=timing.quantile(0.8),
        tflops=row.flops / median / 1e12 if row.flops else None,
        gbs=row.num_bytes / median / 1e9,
        ceiling_pct=share,
        above_ceiling=share > 100,
        speedup=None if reference is None else reference.median / median,
    )
