"""`stepvideo bench model`: whole models on this machine, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from stepvideo_core.cli import options
from stepvideo_core.cli.console import print_json, print_table, stderr
from stepvideo_core.errors import InvalidRequest


def model(
    preset: Annotated[
        str,
        typer.Option(
            "--preset",
            help="Sizes: tiny, small (the yardstick sizes), 51f, 102f, 136f, 204f, 768sq.",
        ),
    ] = "small",
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only", help="dit, block, vae, step_llm, clip or run. Repeatable. Default: all."
        ),
    ] = None,
    layers: Annotated[
        int | None,
        typer.Option(
            "--layers",
            min=2,
            help="Measure the transformer at 1 and at this many layers, and extrapolate.",
        ),
    ] = None,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Timed calls of each.")] = 5,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="CPU threads of torch.")
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Show where the time goes, by torch operator.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also write the JSON to a file.")
    ] = None,
    backend: options.BackendOption = "auto",
    ops: options.OpOption = None,
    no_fallback: options.FallbackOption = False,
    device: options.DeviceOption = None,
    dtype: options.DTypeOption = None,
    json_output: options.JsonOption = False,
) -> None:
    """Time whole models with random weights: DiT, block, VAE, text encoders, and a tiny run.

    Each is warmed up once and measured in a process of its own, so that peak memory is its own.
    What does not fit is skipped and says what it would need; an extrapolated figure says from
    what.
    """
    from stepvideo_bench.model import BenchRequest, model_record, run_isolated
    from stepvideo_bench.presets import find_preset
    from stepvideo_bench.subjects import NAMES
    from stepvideo_bench.units import format_rate, format_seconds
    from stepvideo_core.checkpoints.files import atomic_path
    from stepvideo_core.memory.units import format_bytes

    find_preset(preset)
    names = only or list(NAMES)
    for name in names:
        if name not in NAMES:
            raise InvalidRequest(f"--only {name!r} is none of {', '.join(NAMES)}")
    rows = []
    with stderr().status("measuring") as status:
        for name in names:
            status.update(f"measuring {name}")
            rows.append(
                run_isolated(
                    BenchRequest(
                        name=name,
                        preset=preset,
                        repeats=repeats,
                        threads=threads,
                        profile=profile,
                        backend=backend,
                        ops=tuple(ops or ()),
                        allow_fallback=not no_fallback,
                        device=device,
                        dtype=None if dtype is None else dtype.value,
                        layers=layers,
                    )
                )
            )
    result = model_record(rows)
    if output is not None:
        import json

        with atomic_path(output) as temporary:
            temporary.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    if json_output:
        print_json(result)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("what")
    table.add_column("input")
    for column in ("median", "p20 - p80", "rate", "of roof", "peak above start", "peak"):
        table.add_column(column, justify="right")
    for row in rows:
        if row["status"] == "skipped":
            table.add_row(row["name"], row["preset"], "[dim]skipped[/]")
            stderr().print(f"{row['name']}: {'; '.join(row['reasons'])}", soft_wrap=True)
            continue
        per_second = {
            unit: row[f"{unit}_per_second"]
            for unit in ("tokens", "frames")
            if f"{unit}_per_second" in row
        }
        rates = [f"{value:,.1f} {unit}/s" for unit, value in per_second.items()]
        if row["flops"]:
            rates.append(f"{format_rate(row['flops'] / row['median_s'])}FLOP/s")
        share = row["ceiling_pct"]
        table.add_row(
            row["name"],
            row["input"],
            format_seconds(row["median_s"]),
            f"{format_seconds(row['p20_s'])} - {format_seconds(row['p80_s'])}",
            ", ".join(rates),
            "" if share is None else f"{share:.0f} %" + (" (!)" if share > 100 else ""),
            format_bytes(row["peak_bytes"] - row["start_bytes"]),
            format_bytes(row["peak_bytes"]),
        )
    print_table(table)
    for row in rows:
        _details(row)


def _details(row: dict[str, Any]) -> None:
    """What a line of the table cannot say."""
    from stepvideo_bench.units import format_seconds
    from stepvideo_core.memory.units import format_bytes

    name = row["name"]
    if found := row.get("extrapolated"):
        low, high = found["from_layers"]
        stderr().print(
            f"{name}: extrapolated to {found['to_layers']} layers from {low} "
            f"({format_seconds(found['measured_s'][0])}) and {high} "
            f"({format_seconds(found['measured_s'][1])}); its peak is that of {high} layers"
        )
    if "first_frame_s" in row:
        stderr().print(f"{name}: first frames after {format_seconds(row['first_frame_s'])}")
    for stage in row.get("stages", ()):
        stderr().print(
            f"{name}  {stage['name']:10} {format_seconds(stage['seconds'])}, "
            f"host peak {format_bytes(stage['host_peak_bytes'])}"
        )
    for line in row.get("profile", ()):
        stderr().print(f"{name}  {line['share']:6.1%}  {line['op']}")
