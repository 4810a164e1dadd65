"""`stepvideo parity`: every implementation against float64."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from stepvideo_core.cli import options
from stepvideo_core.cli.console import print_json, print_table, stderr
from stepvideo_core.errors import InvalidRequest

if TYPE_CHECKING:
    from stepvideo_core.dispatch import BackendRegistry
    from stepvideo_core.testing.parity import ParityResult


def parity(
    backend: Annotated[
        list[str] | None,
        typer.Option("--backend", help="Only this backend. Repeatable. Default: all that work."),
    ] = None,
    op: Annotated[
        list[str] | None, typer.Option("--op", help="Only this operator. Repeatable.")
    ] = None,
    dtype: Annotated[
        list[str] | None, typer.Option("--dtype", help="Only this dtype. Repeatable.")
    ] = None,
    virtual: Annotated[
        bool,
        typer.Option(
            "--virtual",
            help="On the virtual device of each --backend, for machines without the hardware.",
        ),
    ] = False,
    html: Annotated[
        Path | None, typer.Option("--html", help="Also write the matrix as an HTML report.")
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option("--record", help="Also write a small record, of which evidence is made."),
    ] = None,
    json_output: options.JsonOption = False,
) -> None:
    """Run the parity suite: case x implementation x dtype, on each backend's own device.

    An implementation may err by twice what the plain-torch reference errs in that dtype, or by a
    few roundings. Exits with 1 if any row fails.
    """
    from stepvideo_core.checkpoints.files import atomic_path
    from stepvideo_core.ops import CONTRACTS
    from stepvideo_core.plugins import load_registry
    from stepvideo_core.testing.evidence import parity_record
    from stepvideo_core.testing.parity import DTYPES

    by_name = {str(known).removeprefix("torch."): known for known in DTYPES}
    for name in op or ():
        if name not in CONTRACTS:
            raise InvalidRequest(f"there is no operator {name!r}; known are {', '.join(CONTRACTS)}")
    for name in dtype or ():
        if name not in by_name:
            raise InvalidRequest(f"--dtype {name!r} is none of {', '.join(by_name)}")
    if virtual:
        if not backend:
            raise InvalidRequest("--virtual needs --backend: every virtual device is a backend's")
        results, summary = _run_virtually(backend, op or (), dtype or ())
    else:
        registry = load_registry()
        dtypes = [by_name[name] for name in dtype] if dtype else list(DTYPES)
        results = list(_run_here(registry, backend, op, dtypes))
        summary = parity_record(results, registry)
    if record is not None:
        with atomic_path(record) as temporary:
            temporary.write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    if html is not None:
        from stepvideo_bench.parity_report import parity_page

        with atomic_path(html) as temporary:
            temporary.write_text(parity_page(results, summary), encoding="utf-8")
    if json_output:
        print_json({"results": [result.as_json() for result in results], "record": summary})
    else:
        print_table(_table(results))
        for row in results:
            if row.status == "failed":
                stderr().print(f"[red]failed[/] {row.id}: {escape('; '.join(row.reasons))}")
    counts = Counter(result.status for result in results)
    if virtual:  # the process on the virtual device has said its numbers
        for run in summary["runs"]:
            stderr().print(
                f"evidence {run['level']}: on {run['on']}; no hardware was involved", soft_wrap=True
            )
    else:
        stderr().print(
            f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped"
        )
    if counts["failed"]:
        raise typer.Exit(1)


def _run_here(
    registry: BackendRegistry,
    backends: list[str] | None,
    ops: list[str] | None,
    dtypes: list[Any],
) -> Iterator[ParityResult]:
    from stepvideo_core.errors import BackendUnavailable
    from stepvideo_core.testing.parity import run_parity

    for name in backends or ():
        registry.get(name)
        if reasons := registry.why_not(name):
            raise BackendUnavailable(f"backend {name!r} cannot work here: {'; '.join(reasons)}")
    counts: Counter[str] = Counter()
    with stderr().status("running the parity suite") as status:
        for result in run_parity(registry, backends=backends, ops=ops, dtypes=dtypes):
            counts[result.status] += 1
            status.update(f"{sum(counts.values())} rows, {counts['failed']} failed: {result.id}")
            yield result


def _run_virtually(
    backends: Sequence[str], ops: Sequence[str], dtypes: Sequence[str]
) -> tuple[list[ParityResult], dict[str, Any]]:
    """The rows, and the record of all runs as one."""
    from stepvideo_core.testing.virtual import (
        VirtualRunFailed,
        find_virtual_device,
        run_virtual_parity,
    )

    selection = [word for name in ops for word in ("--op", name)]
    selection += [word for name in dtypes for word in ("--dtype", name)]
    devices = {name: find_virtual_device(name) for name in backends}
    results: list[ParityResult] = []
    summary: dict[str, Any] = {}
    for name, device in devices.items():
        try:
            rows, record = run_virtual_parity(device, name, selection)
        except VirtualRunFailed as failure:
            raise typer.Exit(failure.exit_code) from None
        results += rows
        if summary:
            for part in ("runs", "entries"):
                summary[part] += record[part]
        else:
            summary = record
    return results, summary


def _table(results: Sequence[ParityResult]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("op", "implementation", "dtype"):
        table.add_column(column)
    for column in ("passed", "failed", "skipped", "worst error / budget"):
        table.add_column(column, justify="right")
    for key in dict.fromkeys((row.op, row.impl, row.dtype) for row in results):
        group = [row for row in results if (row.op, row.impl, row.dtype) == key]
        tally = Counter(row.status for row in group)
        ratios = [
            row.error / row.budget
            for row in group
            if row.error is not None and row.budget is not None
        ]
        table.add_row(
            *key,
            str(tally["passed"]),
            f"[red]{tally['failed']}[/]" if tally["failed"] else "0",
            str(tally["skipped"]),
            f"{max(ratios):.2f}" if ratios else "",
        )
    return table
