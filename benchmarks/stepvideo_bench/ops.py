"""`bench ops`: every implementation of every operator, at the calls that the models really make."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from stepvideo_bench.baselines import COMPILED, compiled, why_not_compile
from stepvideo_bench.calls import Call, heaviest
from stepvideo_bench.presets import TEXT_TOKENS, BenchPreset, find_preset
from stepvideo_bench.timing import Cache
from stepvideo_bench.workloads import (
    Workload,
    decode_workload,
    text_workloads,
    transformer_workloads,
)
from stepvideo_core.dispatch import ANY_DEVICE, BackendRegistry, DispatchPlan
from stepvideo_core.testing.parity import eager_of


@dataclass(frozen=True, kw_only=True)
class OpsRequest:
    """What to measure; see `stepvideo bench ops --help`.

    All rows are measured in each of `passes`, `repeats` times in a row of which the median is kept.
    seconds: what a row may take in all; every row gets a few passes nevertheless.
    """

    presets: tuple[str, ...] = ("tiny",)
    ops: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    backends: tuple[str, ...] = ()
    shapes_per_site: int | None = 1
    passes: int = 10
    repeats: int = 5
    seconds: float = 1.0
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


def count_rows(groups: Sequence[Group]) -> int:
    """Rows that measuring these groups will give."""
    return sum(len(group.candidates) for group in groups)
