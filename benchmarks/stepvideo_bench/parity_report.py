"""The HTML report of `stepvideo parity`: who agrees, by how much, and which case comes closest."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from stepvideo_bench.page import cards, cell, details, facts, page, table
from stepvideo_core.testing.evidence import DTYPE_NAMES, LADDER
from stepvideo_core.testing.parity import ParityResult


def parity_page(results: Sequence[ParityResult], record: dict[str, Any]) -> str:
    """One self-contained page; `record` is the run's own, of `parity_record`."""
    runs = ", ".join(f"{run['backend']} on {run['on']}" for run in record["runs"])
    return page(
        "stepvideo parity",
        runs or "nothing ran",
        _body(results, record),
        "Truth is the definition of an operator in float64 on the very inputs that an "
        "implementation gets. It may err by twice what the definition errs in that dtype, or "
        "by a few roundings.",
    )


def _body(results: Sequence[ParityResult], record: dict[str, Any]) -> Iterator[str]:
    counts = {
        status: sum(result.status == status for result in results)
        for status in ("passed", "failed", "skipped")
    }
    impls = {(result.op, result.impl) for result in results}
    yield cards(
        [(name, str(count)) for name, count in counts.items()]
        + [("implementations", str(len(impls)))]
    )
    failed = [result for result in results if result.status == "failed"]
    if failed:
        yield "<h2>Failed</h2>"
        yield table(
            [("case", ""), ("why", "w")],
            [
                f'<tr><td><a href="#{_anchor(result)}">{escape(result.id)}</a></td>'
                f"{cell('; '.join(result.reasons), 'w bad')}</tr>"
                for result in failed
            ],
        )
    yield "<h2>Matrix</h2>"
    yield (
        '<p class="note">The largest error of any case as a share of its budget; a click leads to '
        "the case. Below it: cases passed, and skipped with reasons.</p>"
    )
    yield table(
        [("operator", ""), ("implementation", ""), *((name, "n") for name in DTYPE_NAMES)],
        [_matrix_row(results, op, impl) for op, impl in _in_order(results)],
    )
    yield "<h2>Cases</h2>"
    for op, impl in _in_order(results):
        own = [result for result in results if (result.op, result.impl) == (op, impl)]
        lines = "".join(_case_row(result) for result in own)
        columns = [("case", ""), ("dtype", ""), ("status", ""), ("error", "n"), ("budget", "n")]
        command = f"stepvideo parity --backend {impl.split(':')[0]} --op {op}"
        yield details(
            f"{op}, {impl}",
            f'<p class="note">Again: <code>{escape(command)}</code></p>'
            + table([*columns, ("reasons", "w")], [lines]),
        )
    yield "<h2>What ran</h2>"
    yield facts(
        [
            ("when", record["when"]),
            ("machine", record["machine"]),
            *(
                (run["backend"], f"{run['level']}: {LADDER[run['level']]}")
                for run in record["runs"]
            ),
            *record["versions"].items(),
        ]
    )


def _in_order(results: Sequence[ParityResult]) -> list[tuple[str, str]]:
    return sorted({(result.op, result.impl) for result in results})


def _matrix_row(results: Sequence[ParityResult], op: str, impl: str) -> str:
    cells = [cell(op), cell(impl)]
    for dtype in DTYPE_NAMES:
        own = [r for r in results if (r.op, r.impl, r.dtype) == (op, impl, dtype)]
        cells.append(_matrix_cell(own))
    return f"<tr>{''.join(cells)}</tr>"


def _matrix_cell(own: Sequence[ParityResult]) -> str:
    judged = [result for result in own if result.error is not None and result.budget]
    passed = sum(result.status == "passed" for result in own)
    skipped = sum(result.status == "skipped" for result in own)
    if not judged:
        return cell(f"skipped {skipped}" if own else "", "n off")
    worst = max(judged, key=lambda result: (result.error or 0.0) / (result.budget or 1.0))
    assert worst.error is not None and worst.budget is not None
    failed = any(result.status == "failed" for result in own)
    kind = "bad" if failed else "ok"
    counts = f"{passed} of {len(own)}" + (f", {skipped} skipped" if skipped else "")
    title = f"{escape(worst.id)}: error {worst.error:.2g}, budget {worst.budget:.2g}"
    share = f"{100 * worst.error / worst.budget:.0f} %"
    return (
        f'<td class="n"><a class="{kind}" href="#{_anchor(worst)}" title="{title}">{share}</a>'
        f'<br><span class="off">{counts}</span></td>'
    )


def _case_row(result: ParityResult) -> str:
    kind = {"passed": "ok", "failed": "bad", "skipped": "off"}[result.status]
    return (
        f'<tr id="{_anchor(result)}">{cell(f"{result.site}-{result.case}")}{cell(result.dtype)}'
        f"{cell(result.status, kind)}"
        f"{cell('' if result.error is None else f'{result.error:.2e}', 'n')}"
        f"{cell('' if result.budget is None else f'{result.budget:.2e}', 'n')}"
        f"{cell('; '.join(result.reasons), 'w')}</tr>"
    )


def _anchor(result: ParityResult) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "-", result.id)
