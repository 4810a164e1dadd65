"""`stepvideo bench compare`: two records, or two revisions, with no verdict inside the noise."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from stepvideo_core.cli import options
from stepvideo_core.cli.console import note, print_json, print_table, stderr
from stepvideo_core.errors import InvalidRequest

if TYPE_CHECKING:
    from stepvideo_bench.compare import Report


def compare(
    a: Annotated[str, typer.Argument(help="A record (.json, .jsonl) or a git revision.")],
    b: Annotated[str, typer.Argument(help="What to compare with it.")],
    threshold: Annotated[
        str, typer.Option("--threshold", help="What counts as a difference, e.g. 5%.")
    ] = "5%",
    preset: Annotated[
        str, typer.Option("--preset", help="What to measure of two revisions.")
    ] = "tiny",
    op: Annotated[
        list[str] | None,
        typer.Option("--op", help="Of two revisions, only this operator. Repeatable."),
    ] = None,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, help="Runs of each revision, in turn.")
    ] = 3,
    passes: Annotated[
        int, typer.Option("--passes", min=1, help="Samples per row and run of a revision.")
    ] = 4,
    json_output: options.JsonOption = False,
) -> None:
    """Say which rows of B are slower or faster than in A, beyond the noise and the threshold.

    Records of different machines or settings are refused. Exit codes: 0 nothing is slower (unclear
    rows included), 1 something is slower, 2 the two cannot be compared.
    """
    from stepvideo_bench.compare import compare_records, parse_threshold

    share = parse_threshold(threshold)
    extra = ["--preset", preset, "--passes", str(passes), "--no-compile"]
    for name in op or ():
        extra += ["--op", name]
    report = compare_records(*_records(a, b, extra, rounds), share)
    if json_output:
        print_json(report.as_json())
    else:
        _show(report)
    if report.slower:
        raise typer.Exit(1)


def _records(
    a: str, b: str, extra: list[str], rounds: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    from stepvideo_bench.revisions import is_revision, measure_revisions, unpack
    from stepvideo_bench.rows import read_any

    files = [Path(text) for text in (a, b)]
    if all(path.is_file() for path in files):
        return read_any(files[0]), read_any(files[1])
    here = Path.cwd()
    for text, path in zip((a, b), files, strict=True):
        if path.is_file() or not is_revision(text, here):
            raise InvalidRequest(
                f"{text!r} is {'a file' if path.is_file() else 'neither a file nor a revision'}: "
                "give two records, or two git revisions from within a checkout"
            )
    with tempfile.TemporaryDirectory(prefix="stepvideo-compare-") as folder:
        sources = [unpack(text, here, Path(folder) / name) for text, name in ((a, "a"), (b, "b"))]
        with stderr().status("measuring") as status:
            first, second = measure_revisions(sources, extra, rounds, status.update)
    return first, second


def _show(report: Report) -> None:
    from stepvideo_bench.units import format_seconds

    colors = {"slower": "red", "faster": "green", "same": "dim", "unclear": "yellow"}
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("row", overflow="fold")
    for column in ("A", "B", "B / A", "interval"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for row in report.comparisons:
        table.add_row(
            row.row,
            format_seconds(row.a_s),
            format_seconds(row.b_s),
            f"{row.ratio:.3f}",
            f"{row.low:.3f} - {row.high:.3f}",
            f"[{colors[row.verdict]}]{row.verdict}[/]",
        )
    print_table(table)
    for text in report.notes:
        note(text)
    counts = {name: 0 for name in colors}
    for row in report.comparisons:
        counts[row.verdict] += 1
    verdict = ""
    if not counts["slower"] + counts["faster"]:
        verdict = ": no difference" + (" beyond the noise" if counts["unclear"] else "")
    stderr().print(
        f"{counts['slower']} slower, {counts['faster']} faster, {counts['same']} the same, "
        f"{counts['unclear']} unclear at a threshold of {report.threshold:.0%}" + verdict
    )
