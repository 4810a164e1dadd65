"""`stepvideo parity`: every implementation against float64."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from stepvideo_core.cli import options
from stepvideo_core.cli.console import print_json, print_table, stderr
from stepvideo_core.errors import InvalidRequest

if TYPE_CHECKING:
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
    json_output: options.JsonOption = False,
) -> None:
    """Run the parity suite: case x implementation x dtype, on each backend's own device.

    An implementation may err by twice what the plain-torch reference errs in that dtype, or by a
    few roundings. Exits with 1 if any row fails.
    """
    from stepvideo_core.ops import CONTRACTS
    from stepvideo_core.testing.parity import DTYPES

    by_name = {str(known).removeprefix("torch."): known for known in DTYPES}
    for name in op or ():
        if name not in CONTRACTS:
            raise InvalidRequest(f"there is no operator {name!r}; known are {', '.join(CONTRACTS)}")
    for name in dtype or ():
        if name not in by_name:
            raise InvalidRequest(f"--dtype {name!r} is none of {', '.join(by_name)}")
    evidence: dict[str, Any] = {}
    if virtual:
        if not backend:
            raise InvalidRequest("--virtual needs --backend: every virtual device is a backend's")
        results, evidence = _run_virtually(backend, op or (), dtype or ())
    else:
        dtypes = [by_name[name] for name in dtype] if dtype else list(DTYPES)
        results = list(_run_here(backend, op, dtypes))
    counts = Counter(result.status for result in results)
    if json_output:
        print_json({"results": [result.as_json() for result in results], **evidence})
    else:
        print_table(_table(results))
        for row in results:
            if row.status == "failed":
                stderr().print(f"[red]failed[/] {row.id}: {escape('; '.join(row.reasons))}")
    if not evidence:
        stderr().print(
            f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped"
        )
    else:  # the processes on the virtual devices have said their numbers
        stderr().print(
            f"evidence {evidence['evidence']}: on {evidence['device']}; no hardware was involved",
            soft_wrap=True,
        )
    if counts["failed"]:
        raise typer.Exit(1)


def _run_here(
    backends: list[str] | None, ops: list[str] | None, dtypes: list[Any]
) -> Iterator[ParityResult]:
    from stepvideo_core.errors import BackendUnavailable
    from stepvideo_core.plugins import load_registry
    from stepvideo_core.testing.parity import run_parity

    registry = load_registry()
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
    """The rows, and what they are evidence of."""
    from stepvideo_core.testing.virtual import (
        EVIDENCE,
        VirtualRunFailed,
        find_virtual_device,
        run_virtual_parity,
    )

    selection = [word for name in ops for word in ("--op", name)]
    selection += [word for name in dtypes for word in ("--dtype", name)]
    devices = {name: find_virtual_device(name) for name in backends}
    results: list[ParityResult] = []
    for name, device in devices.items():
        try:
            results += run_virtual_parity(device, ["--backend", name, *selection])
        except VirtualRunFailed as failure:
            raise typer.Exit(failure.exit_code) from None
    described = "; ".join(device.description for device in devices.values())
    return results, {"evidence": EVIDENCE, "device": described}


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
