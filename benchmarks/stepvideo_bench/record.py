"""A whole run of `bench ops`: device, ceilings, rows, and everything they depend on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import torch

from stepvideo_bench.devices import datasheet_of
from stepvideo_bench.environment import device_name, fingerprint
from stepvideo_bench.ops import Group, OpsRequest, count_rows, list_groups
from stepvideo_bench.probes import measure_ceilings, probed_again
from stepvideo_bench.rows import OpsRecord
from stepvideo_bench.timing import Effort
from stepvideo_bench.trial import GroupTrial
from stepvideo_core.dispatch import BackendRegistry, DispatchPlan, DispatchPolicy, select_device

_PROBE = Effort(repeats=9, seconds=2.0)
_PROBE_AGAIN = Effort(repeats=3, seconds=0.5, min_samples=1)


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    turn: 0 while everything is tried for the first time, then the pass. done, total: rows of it.
    """

    turn: int
    passes: int
    done: int
    total: int
    what: str


def record_ops(
    request: OpsRequest,
    registry: BackendRegistry,
    *,
    device: str | None = None,
    dtype: str | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> OpsRecord:
    """Measure what a request asks for.

    device: a torch device string; None takes the first requested backend's, or `auto`'s. dtype:
    None is bfloat16 on an accelerator and float32 on the CPU. Raises StepVideoError for a device or
    preset that does not exist.
    """
    asked = request.backends[0] if len(request.backends) == 1 else "auto"
    chosen = select_device(registry, DispatchPolicy.parse(backend=asked), device)
    default = "float32" if chosen.type == "cpu" else "bfloat16"
    number = getattr(torch, dtype or default)
    plan = DispatchPlan(registry, DispatchPolicy(), device=chosen, dtype=number)
    groups = list_groups(request, registry, plan)
    ceilings = measure_ceilings(registry, chosen, number, _PROBE)
    sheet = datasheet_of(device_name(chosen))
    total = count_rows(groups)

    def report(turn: int, done: int, group: Group) -> int:
        what = f"{group.call.op.name} at {group.call.site.name}, {group.preset}"
        on_progress(Progress(turn, request.passes, done, total, what))
        return done + len(group.candidates)

    trials, done = [], 0
    for group in groups:
        done = report(0, done, group)
        trials.append(GroupTrial(group, request, registry, chosen, ceilings))
    # A control like the rows: one sample per pass.
    ceilings = replace(ceilings, gemm_samples=(), copy_samples=())
    for turn in range(1, request.passes + 1):
        ceilings = probed_again(ceilings, registry, chosen, number, _PROBE_AGAIN)
        done = 0
        for trial in trials:
            done = report(turn, done, trial.group)
            trial.take_pass()
    return OpsRecord(
        environment=fingerprint(registry, chosen),
        ceilings=ceilings.as_json()
        | {"datasheet": None if sheet is None else {"text": sheet.text, "source": sheet.source}},
        settings=asdict(request),
        plan=plan.as_json(),
        rows=tuple(row for trial in trials for row in trial.rows(ceilings)),
    )
