"""`stepvideo bench model`: whole models on this machine, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from stepvideo_core.cli import options
from stepvideo_core.cli.console import print_json, print_table, stderr
from stepvideo_core.errors import InvalidRequest


def model(
    preset: Annotated[
        str, typer.Option("--preset", help="Sizes: tiny, or small (the yardstick sizes).")
    ] = "small",
    only: Annotated[
        list[str] | None,
        typer.Option("--only", help="dit, vae or run. Repeatable. Default: all three."),
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
    """Time a DiT forward, a VAE decode and a whole run, with random weights.

    Each is warmed up once and measured in a process of its own, so that peak memory is its own.
    """
    from stepvideo_bench.model import BENCHES, PRESETS, BenchRequest, run_isolated
    from stepvideo_core.checkpoints.files import atomic_path
    from stepvideo_core.memory.units import format_bytes

    if preset not in PRESETS:
        raise InvalidRequest(f"--preset {preset!r} is none of {', '.join(PRESETS)}")
    names = only or list(BENCHES)
    for name in names:
        if name not in BENCHES:
            raise InvalidRequest(f"--only {name!r} is none of {', '.join(BENCHES)}")
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
                    )
                )
            )
    result = {"rows": rows}
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
    for column in ("median", "p20", "p80", "TFLOP/s", "peak above start", "peak"):
        table.add_column(column, justify="right")
    for row in rows:
        rate = row["tflops_per_second"]
        table.add_row(
            row["name"],
            row["input"],
            f"{row['median_s']:.3f} s",
            f"{row['p20_s']:.3f}",
            f"{row['p80_s']:.3f}",
            "" if rate is None else f"{rate:.3f}",
            format_bytes(row["peak_bytes"] - row["start_bytes"]),
            format_bytes(row["peak_bytes"]),
        )
    print_table(table)
    for row in rows:
        for line in row.get("profile", ()):
            stderr().print(f"{row['name']}  {line['share']:6.1%}  {line['op']}")
