"""A whole run of `bench ops`: device, ceilings, rows, and everything they depend on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from stepvideo_bench.devices import datasheet_of
from stepvideo_bench.environment import device_name, fingerprint
from stepvideo_bench.ops import OpsRequest, count_rows, list_groups, measure_group
from stepvideo_bench.probes import measure_ceilings
from stepvideo_bench.rows import OpsRecord, Row
from stepvideo_bench.timing import Effort
from stepvideo_core.dispatch import BackendRegistry, DispatchPlan, DispatchPolicy, select_device


@dataclass(frozen=True)
class Progress:
    """How far a run is: rows done, rows in all, and what is measured now."""

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
    repeats = max(3, min(9, request.effort.repeats))
    ceilings = measure_ceilings(registry, chosen, number, Effort(repeats=repeats, seconds=2.0))
    sheet = datasheet_of(device_name(chosen))
    total = count_rows(groups)
    rows: list[Row] = []
    for group in groups:
        what = f"{group.call.op.name} at {group.call.site.name}, {group.preset}"
        on_progress(Progress(len(rows), total, what))
        rows += measure_group(group, request, registry, chosen, ceilings)
    return OpsRecord(
        environment=fingerprint(registry, chosen),
        ceilings=ceilings.as_json()
        | {"datasheet": None if sheet is None else {"text": sheet.text, "source": sheet.source}},
        settings=_settings(request),
        plan=plan.as_json(),
        rows=tuple(rows),
    )


def _settings(request: OpsRequest) -> dict[str, Any]:
    settings = asdict(request)
    effort = settings.pop("effort")
    return settings | {"repeats": effort["repeats"], "seconds": effort["seconds"]}
