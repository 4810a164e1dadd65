"""`stepvideo evidence`: the table of what has been shown, from records."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from stepvideo_core.cli.console import stderr
from stepvideo_core.errors import InvalidRequest


def evidence(
    records: Annotated[
        list[Path],
        typer.Argument(
            help="Records of `parity --record` and `bench ops -o X.json`, or folders of them."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file; default: standard output.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail if the file is not up to date.")
    ] = False,
) -> None:
    """Write the evidence table: operator x implementation x dtype, on a ladder from E1 to E4.

    With --check it exits with 1 if the file at --output differs from what the records say.
    """
    from stepvideo_core.checkpoints.files import atomic_path
    from stepvideo_core.testing.evidence import evidence_table, read_records

    text = evidence_table(read_records(records))
    if check:
        if output is None:
            raise InvalidRequest("--check needs the file to check: --output docs/EVIDENCE.md")
        if not output.is_file() or output.read_text(encoding="utf-8") != text:
            stderr().print(f"{output} is stale: run the same command without --check")
            raise typer.Exit(1)
        stderr().print(f"{output} is up to date")
    elif output is None:
        sys.stdout.write(text)
    else:
        with atomic_path(output) as temporary:
            temporary.write_text(text, encoding="utf-8")
        stderr().print(f"written: {output}")
