"""What `stepvideo run` tells before and after: needs, differences, the JSON object."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from stepvideo_core.cli.console import print_json, print_table, stderr

if TYPE_CHECKING:
    from stepvideo_core.pipeline import StepVideoPipeline
    from stepvideo_core.request import GenerationSettings

_VIEWERS = {"darwin": "open", "win32": "start"}


def report_dry_run(
    pipe: StepVideoPipeline,
    settings: GenerationSettings,
    target: Path,
    memory_limit: str | None,
    json_output: bool,
) -> None:
    """What would run, what it needs, and whether that fits (exit code 2 if not)."""
    if not json_output:
        stderr().print(f"would write {target}", soft_wrap=True)
    report_needs(pipe, settings, memory_limit, json_output, {"output": str(target)})


def report_needs(
    pipe: StepVideoPipeline,
    settings: GenerationSettings,
    memory_limit: str | None,
    json_output: bool,
    extra: dict[str, Any],
) -> None:
    """The memory that a video needs, with `extra` in the JSON object; NotEnoughMemory if it does
    not fit."""
    from stepvideo_core.memory.estimate import available_memory, check_fits
    from stepvideo_core.memory.units import format_bytes, parse_memory
    from stepvideo_core.record import run_record

    needs = pipe.needs(settings)
    limit = None if memory_limit is None else parse_memory(memory_limit)
    allowed = available_memory(pipe.device) if limit is None else limit
    fits = all(need.total <= allowed for need in needs)
    if json_output:
        record = run_record(pipe, settings)
        record |= extra | {
            "memory": [need.as_json() for need in needs],
            "available": allowed,
            "fits": fits,
        }
        print_json(record)
    else:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("stage")
        for column in ("weights", "activations", "peak", f"fits {format_bytes(allowed)}"):
            table.add_column(column, justify="right")
        for need in needs:
            table.add_row(
                need.name,
                format_bytes(need.weights),
                format_bytes(need.activations),
                format_bytes(need.total),
                "yes" if need.total <= allowed else "[red]no[/]",
            )
        shape = list(settings.latent_shape(pipe.config.vae))
        stderr().print(
            f"{settings.num_frames} frames of {settings.width}x{settings.height}, latents {shape}, "
            f"{settings.num_steps} steps, guidance {settings.cfg_scale}, seed {settings.seed}, "
            f"{str(pipe.dtype).removeprefix('torch.')} on {pipe.device}, {backends_used(pipe)}",
            soft_wrap=True,
        )
        print_table(table)
    check_fits(needs, pipe.device, limit)


def report_result(target: Path) -> None:
    """The last line: where the video is and, unless it is a file of tensors, how to see it."""
    line = f"the video is in {target}"
    if target.suffix != ".safetensors":
        viewer = _VIEWERS.get(sys.platform, "xdg-open")
        line += f"; see it with: {viewer} {shlex.quote(str(target))}"
    stderr().print(line, soft_wrap=True, markup=False)


def summary(
    pipe: StepVideoPipeline,
    settings: GenerationSettings,
    record: dict[str, Any],
    target: Path,
    notes: list[str],
    seconds: float,
) -> dict[str, Any]:
    """The object that `run --json` prints: the record, with output, timings and peaks in front."""
    stages = record["stages"]
    device_peaks = [row["device_peak_bytes"] for row in stages if row["device_peak_bytes"]]
    return {
        "output": str(target),
        "seed": settings.seed,
        "plan": record["plan"],
        "timings": {row["name"]: row["seconds"] for row in stages} | {"total": seconds},
        "peak_memory": {
            "host": max(row["host_peak_bytes"] for row in stages),
            "device": max(device_peaks) if device_peaks else None,
        },
        "notes": notes,
        **{key: value for key, value in record.items() if key not in ("seed", "plan")},
    }


def backends_used(pipe: StepVideoPipeline) -> str:
    """`backend cuda + reference`."""
    names = sorted({choice.impl.split(":")[0] for choice in pipe.plan.choices})
    return f"backend {' + '.join(names)}"


def print_shadow(record: dict[str, Any]) -> None:
    """The largest difference between each implementation and its shadow; nothing without one."""
    rows = [row for row in record.get("shadow", ()) if row["calls"]]
    if not rows:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("op", "site", "implementation", "shadow"):
        table.add_column(column)
    for column in ("calls", "max abs", "max rel"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            row["op"],
            row["site"],
            row["impl"],
            row["shadow"],
            str(row["calls"]),
            f"{row['max_abs']:.2e}",
            f"{row['max_rel']:.2e}" + (" [red]NaN[/]" if row["nonfinite"] else ""),
        )
    print_table(table)
