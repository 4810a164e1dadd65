"""`stepvideo bench ops`: every implementation of every operator, in shares of the roofline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from stepvideo_core.cli import options
from stepvideo_core.cli.console import print_json, print_table, stderr
from stepvideo_core.errors import BackendUnavailable, InvalidRequest

if TYPE_CHECKING:
    from stepvideo_bench.rows import Row


def ops(
    preset: Annotated[
        list[str] | None,
        typer.Option(
            "--preset",
            help="Sizes: 204f, 768sq, 136f, 102f, 51f (official), small, tiny. Repeatable.",
        ),
    ] = None,
    op: Annotated[
        list[str] | None, typer.Option("--op", help="Only this operator. Repeatable.")
    ] = None,
    site: Annotated[
        list[str] | None,
        typer.Option("--site", help="Only this call site, as `stepvideo plan` has it. Repeatable."),
    ] = None,
    backend: Annotated[
        list[str] | None,
        typer.Option("--backend", help="Only this backend and the reference. Repeatable."),
    ] = None,
    all_shapes: Annotated[
        bool,
        typer.Option("--all-shapes", help="Every shape of a site, not only the heaviest one."),
    ] = False,
    passes: Annotated[
        int,
        typer.Option(
            "--passes", min=1, help="Times to measure all rows: a row has one sample of each."
        ),
    ] = 10,
    repeats: Annotated[
        int, typer.Option("--repeats", min=1, help="A sample is the median of so many.")
    ] = 5,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.0, help="Stop sampling a row after this long.")
    ] = 1.0,
    row_seconds: Annotated[
        float,
        typer.Option(
            "--row-seconds", min=0.0, help="Skip rows whose single call must take longer."
        ),
    ] = 20.0,
    warm_cache: Annotated[
        bool, typer.Option("--warm-cache", help="Reuse the same arguments, for launch-bound work.")
    ] = False,
    no_compile: Annotated[
        bool, typer.Option("--no-compile", help="Leave out the torch.compile baseline.")
    ] = False,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "--output",
            "-o",
            help="A .json, .jsonl, .csv, .md or .html file, or a folder for all of them and the "
            "figures as SVG and PNG. Repeatable.",
        ),
    ] = None,
    device: options.DeviceOption = None,
    dtype: options.DTypeOption = None,
    json_output: options.JsonOption = False,
) -> None:
    """Measure operators at the calls that the models make: time, rate, share of the roof, error.

    The roof is probed on the spot with a matrix product and a copy. Implementations take turns,
    arguments are rotated so that the cache is cold, and the torch.compile of each definition is a
    baseline. All rows are measured in several passes, so that what a row's samples have in common
    is the row. One that this machine cannot do is skipped and says what it would need. Exits with 1
    if a row failed.
    """
    from stepvideo_bench.ops import OpsRequest
    from stepvideo_bench.record import Progress, record_ops
    from stepvideo_bench.writing import check_output, write_record
    from stepvideo_core.ops import CONTRACTS
    from stepvideo_core.plugins import load_registry

    registry = load_registry()
    for name in op or ():
        if name not in CONTRACTS:
            raise InvalidRequest(f"there is no operator {name!r}; known are {', '.join(CONTRACTS)}")
    for name in backend or ():
        if reasons := registry.why_not(name):
            raise BackendUnavailable(f"backend {name!r} cannot work here: {'; '.join(reasons)}")
    for path in output or ():
        check_output(path)
    request = OpsRequest(
        presets=tuple(preset or ("tiny",)),
        ops=tuple(op or ()),
        sites=tuple(site or ()),
        backends=tuple(backend or ()),
        shapes_per_site=None if all_shapes else 1,
        passes=passes,
        repeats=repeats,
        seconds=seconds,
        cache="warm" if warm_cache else "cold",
        compile=not no_compile,
        row_seconds=row_seconds,
    )
    with stderr().status("probing the device") as status:

        def show(progress: Progress) -> None:
            stage = f"pass {progress.turn} of {progress.passes}" if progress.turn else "trying"
            status.update(f"{stage}, {progress.done}/{progress.total} rows: {progress.what}")

        record = record_ops(
            request,
            registry,
            device=device,
            dtype=None if dtype is None else dtype.value,
            on_progress=show,
        )
    for path in output or ():
        write_record(record, path)
    if json_output:
        print_json(record.as_json())
    else:
        print_table(_table(record.rows))
        _footnotes(record.ceilings, record.rows)
    for path in output or ():
        stderr().print(f"written: {path}", soft_wrap=True)
    if any(row.status == "failed" for row in record.rows):
        raise typer.Exit(1)


def _table(rows: tuple[Row, ...]) -> Table:
    from stepvideo_bench.tables import row_texts

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("op", "site", "implementation"):
        table.add_column(column, no_wrap=True)
    for column in ("median", "p20 - p80", "rate", "of roof", "speed-up", "rel. error", "peak"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("bound")
    previous = None
    for row in rows:
        if previous is not None and row.call != previous:
            table.add_section()
        place = (row.op, f"{row.site} {row.preset}") if row.call != previous else ("", "")
        previous = row.call
        name = f"[bold]{row.impl} *[/]" if row.planned else row.impl
        if row.status != "measured":
            color = "red" if row.status == "failed" else "dim"
            table.add_row(*place, name, f"[{color}]{row.status}[/]")
            continue
        texts = row_texts(row)
        if row.above_ceiling:
            texts["of roof"] = f"[yellow]{texts['of roof']}[/]"
        table.add_row(*place, name, *texts.values(), row.bound)
    return table


def _footnotes(ceilings: dict[str, Any], rows: tuple[Row, ...]) -> None:
    from stepvideo_bench.units import format_bandwidth, format_rate

    console = stderr()
    console.print(
        f"roof: {format_rate(ceilings['flops_per_second'])}FLOP/s by {ceilings['gemm']}, "
        f"{format_bandwidth(ceilings['bytes_per_second'])} by a copy; * is what auto takes"
    )
    if ceilings["datasheet"]:
        console.print(f"datasheet: {ceilings['datasheet']['text']}", soft_wrap=True)
    if any(row.above_ceiling for row in rows):
        console.print(
            "(!) above 100 %: the probe or the counts miss something (a warm cache, a noisy "
            "machine); not to be quoted"
        )
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if row.status != "measured":
            text = f"{row.status}: {'; '.join(row.reasons)}"
            reasons.setdefault(text, []).append(f"{row.op}@{row.site} {row.impl}")
    for text, places in reasons.items():
        shown = ", ".join(places[:3]) + (f" and {len(places) - 3} more" if len(places) > 3 else "")
        console.print(f"{escape(shown)}: {escape(text)}", soft_wrap=True)
