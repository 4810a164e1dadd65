"""`stepvideo inspect`: what a checkpoint holds, and whether it fits its models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from stepvideo_core.cli import options
from stepvideo_core.cli.console import print_json, print_table, stderr


def inspect(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A checkpoint folder, or tiny.")],
    json_output: options.JsonOption = False,
) -> None:
    """Show files, sizes, dtypes, and every tensor that is missing, left over or misshapen.

    Reads headers only, so a 100 GB checkpoint takes seconds. Exits with 2 if it would not load.
    """
    from stepvideo_core.checkpoints.bundled import resolve_model
    from stepvideo_core.checkpoints.inspection import inspect_checkpoint
    from stepvideo_core.memory.units import format_bytes

    report = inspect_checkpoint(resolve_model(folder))
    if json_output:
        print_json(report.as_json())
        raise typer.Exit(0 if report.ok else 2)
    state = "" if report.trained else ", untrained"
    stderr().print(f"{report.root}: {report.task}{state}", soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("component")
    for column in ("files", "tensors", "parameters", "size"):
        table.add_column(column, justify="right")
    table.add_column("dtypes")
    table.add_column("state", overflow="fold")
    for part in report.components:
        table.add_row(
            part.name,
            str(len(part.files)),
            str(part.num_tensors),
            f"{part.num_parameters:,}",
            format_bytes(part.num_bytes),
            ", ".join(part.dtypes),
            "[green]complete[/]" if not part.problems else "[red]does not load[/]",
        )
    print_table(table)
    for problem in report.problems:
        stderr().print(f"[red]problem:[/] {escape(problem)}", soft_wrap=True)
    raise typer.Exit(0 if report.ok else 2)
