"""`bench ops`: every implementation of every operator, at the calls that the models really make."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from stepvideo_bench.baselines import COMPILED, compiled, why_not_compile
from stepvideo_bench.calls import Call, heaviest
from stepvideo_bench.footprint import workspace_bytes
from stepvideo_bench.host import peak_of_call
from stepvideo_bench.inputs import copies, make_arguments
from stepvideo_bench.oracle import Truth, find_truth
from stepvideo_bench.presets import TEXT_TOKENS, BenchPreset, find_preset
from stepvideo_bench.probes import Ceilings
from stepvideo_bench.rows import Row
from stepvideo_bench.timing import (
    Cache,
    Effort,
    Timing,
    interleaved,
    is_cold,
    sets_for_cold_cache,
)
from stepvideo_bench.workloads import (
    Workload,
    decode_workload,
    text_workloads,
    transformer_workloads,
)
from stepvideo_core.dispatch import ANY_DEVICE, BackendRegistry, DispatchPlan
from stepvideo_core.memory.estimate import available_memory
from stepvideo_core.memory.units import format_bytes
from stepvideo_core.testing.parity import eager_of

# Kept free of a measurement: other processes, and pages that torch's allocator holds back.
_SPARE = 0.8
_ROTATION_SHARE = 0.25


@dataclass(frozen=True, kw_only=True)
class OpsRequest:
    """What to measure; see `stepvideo bench ops --help`."""

    presets: tuple[str, ...] = ("tiny",)
    ops: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    backends: tuple[str, ...] = ()
    shapes_per_site: int | None = 1
    effort: Effort = field(default_factory=Effort)
    cache: Cache = "cold"
    compile: bool = True
    row_seconds: float = 20.0


@dataclass(frozen=True)
class Candidate:
    """One row to be: a function, or the reasons why it is not measured."""

    address: str
    fn: Callable[..., Any] | None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Group:
    """All candidates for one call of one preset."""

    preset: str
    tokens: int
    call: Call
    count: int
    """How often one forward, decoder chunk or prompt makes the call."""
    planned: str
    candidates: tuple[Candidate, ...] = field(default=())


def list_groups(request: OpsRequest, registry: BackendRegistry, plan: DispatchPlan) -> list[Group]:
    """Everything that the request asks for, in the order of the models; binds the plan's sites."""
    groups = []
    for name in request.presets:
        preset = find_preset(name)
        dtype = plan.dtype
        seen: set[Call] = set()
        for workload in _workloads(preset, dtype, request.sites):
            for call, count in heaviest(workload.log, request.shapes_per_site):
                wanted = (not request.ops or call.op.name in request.ops) and (
                    not request.sites or call.site.name in request.sites
                )
                if not wanted or call in seen:
                    continue
                seen.add(call)
                plan.bind(call.op, call.site)
                site = replace(call.site, device=plan.device, dtype=dtype)
                planned = next(
                    choice.impl
                    for choice in plan.choices
                    if choice.op == call.op.name and choice.site == site
                )
                group = Group(name, preset.tokens, call, count, planned)
                groups.append(
                    replace(group, candidates=tuple(_candidates(request, registry, plan, call)))
                )
    return groups


def _workloads(
    preset: BenchPreset, dtype: torch.dtype, sites: tuple[str, ...]
) -> Iterator[Workload]:
    """The models that have any of the sites; all of them if none is named."""

    def wanted(model: str) -> bool:
        return not sites or any(site.split(".")[0] == model for site in sites)

    if wanted("dit"):
        keys, forward = transformer_workloads(preset.config, preset.dit_latents, TEXT_TOKENS, dtype)
        yield from (forward, keys)
    if wanted("vae"):
        yield decode_workload(preset.config, preset.vae_latents, dtype)
    if wanted("step_llm"):
        yield from text_workloads(preset.config, dtype, 1)


def _candidates(
    request: OpsRequest, registry: BackendRegistry, plan: DispatchPlan, call: Call
) -> Iterator[Candidate]:
    site = replace(call.site, device=plan.device, dtype=plan.dtype)
    for backend in registry:
        chosen = not request.backends or backend.name in request.backends or backend.fallback
        if not chosen or backend.device_type not in (ANY_DEVICE, plan.device.type):
            continue
        for impl in registry.implementations(backend.name):
            if impl.op is call.op:
                reasons = tuple(impl.why_not(site))
                address = f"{backend.name}:{impl.name}"
                yield Candidate(address, None if reasons else impl.fn, reasons)
    if request.compile:
        reasons = tuple(why_not_compile(plan.device))
        eager = eager_of(registry, call.op.name).fn
        yield Candidate(COMPILED, None if reasons else compiled(eager), reasons)


def measure_group(
    group: Group,
    request: OpsRequest,
    registry: BackendRegistry,
    device: torch.device,
    ceilings: Ceilings,
) -> list[Row]:
    """One row per candidate. Whatever one of them does, the others are measured."""
    call = group.call
    blank = _blank(group, device, ceilings)
    reason = _too_large(call, device, ceilings, request.row_seconds)
    if reason:
        return [
            replace(blank, impl=candidate.address, reasons=candidate.reasons or (reason,))
            for candidate in group.candidates
        ]
    arguments = make_arguments(call, device)
    truth = find_truth(registry, call, arguments, device)
    rows: dict[str, Row] = {}
    runnable: dict[str, Callable[..., Any]] = {}
    for candidate in group.candidates:
        row = replace(blank, impl=candidate.address, reasons=candidate.reasons)
        row = replace(row, planned=candidate.address == group.planned)
        if candidate.fn is not None:
            if candidate.address == COMPILED:
                # A definition is compiled anew for each of its shapes, of which torch keeps few.
                torch.compiler.reset()
            row = _tried(row, candidate.fn, call, arguments, truth, device)
            if row.status == "measured":
                runnable[candidate.address] = candidate.fn
        rows[candidate.address] = row
    num_sets = 1
    if request.cache == "cold":
        spare = int(available_memory(device) * _ROTATION_SHARE)
        num_sets = sets_for_cold_cache(call.num_bytes, device, spare)
    with torch.no_grad():
        timings = interleaved(runnable, copies(arguments, num_sets), device, request.effort)
    reference = timings.get(_definition(registry, call))
    for address, timing in timings.items():
        cold = is_cold(call.num_bytes, num_sets, device)
        rows[address] = _with_timing(rows[address], timing, reference, ceilings, group, cold)
    return list(rows.values())


def _blank(group: Group, device: torch.device, ceilings: Ceilings) -> Row:
    call = group.call
    return Row(
        op=call.op.name,
        site=call.site.name,
        preset=group.preset,
        tokens=group.tokens,
        shape=call.shape,
        count=group.count,
        impl="",
        dtype=str(call.specs[0].dtype).removeprefix("torch."),
        device=str(device),
        status="skipped",
        flops=call.cost.flops,
        num_bytes=call.cost.num_bytes,
        bound=ceilings.bound(call.cost),
        roof_s=ceilings.seconds(call.cost),
    )


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


def _with_timing(
    row: Row, timing: Timing, reference: Timing | None, ceilings: Ceilings, group: Group, cold: bool
) -> Row:
    median = timing.median
    share = 100 * ceilings.seconds(group.call.cost) / median
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
        cold=cold,
    )


def count_rows(groups: Sequence[Group]) -> int:
    """Rows that measuring these groups will give."""
    return sum(len(group.candidates) for group in groups)
