"""The evidence table: for every implementation and dtype, how far it has been shown, and on what.

    stepvideo parity --backend npu --virtual --json > npu.json
    stepvideo parity --backend reference --json > cpu.json
    python -m stepvideo_bench.evidence npu.json "E3:the CPU=cpu.json" -o docs/EVIDENCE.md

Reports are those of `stepvideo parity --json`, which say themselves what they are evidence of if
they come from a virtual device, and `device_check.json`. Nothing in the table is written by hand.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepvideo_core.checkpoints.files import atomic_path
from stepvideo_core.errors import InvalidRequest, StepVideoError

_LABELLED = re.compile(r"(?P<level>E[1-4]):(?P<where>[^=]+)=(?P<path>.+)")

LEGEND = """\
# Evidence

How far each implementation has been shown to compute what its operator means:

- E1: its calls are accepted by the vendor's real package, by schema and shape function;
- E2: its numbers were computed under an interpreter or an emulation, within the budget;
- E3: its numbers were computed on the device, within the budget;
- E4: its speed was measured on the device.

A level includes those below it that apply: E2 on the virtual NPU checks every call as E1 does, and
`tests/npu/test_ascend_contract.py` makes the calls of the 30B model, at their real sizes. What has
no row has no evidence. The budget is the larger of a few roundings and twice what the operator's
definition errs in the same dtype. Made by `python -m stepvideo_bench.evidence` from reports that
programs wrote.
"""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Rows of parity, what they are evidence of, and the implementations measured for speed."""

    level: str
    where: str
    rows: list[dict[str, Any]]
    measured: frozenset[tuple[str, str]] = frozenset()


def read_report(argument: str) -> Report:
    """A report named on the command line: FILE, or LEVEL:WHERE=FILE for one without a label.

    Raises InvalidRequest if the file is no report, or does not say what it is evidence of.
    """
    labelled = _LABELLED.fullmatch(argument)
    path = Path(labelled["path"] if labelled else argument)
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"{path} is no report: {error}") from None
    if "sections" in report:
        sections = report["sections"]
        rows = [row for row in sections.get("parity", []) if "impl" in row]
        speed = frozenset(
            (row["op"], row["impl"])
            for row in sections.get("kernels", [])
            if row.get("status") == "measured"
        )
        return Report(level="E3", where=report["environment"]["device"], rows=rows, measured=speed)
    if "results" not in report:
        raise InvalidRequest(f"{path} is neither a report of parity nor of the device check")
    if labelled:
        return Report(level=labelled["level"], where=labelled["where"], rows=report["results"])
    if "evidence" not in report:
        raise InvalidRequest(
            f"{path} does not say what it is evidence of: name it as LEVEL:WHERE={path}, for "
            "example E3:the CPU=..."
        )
    return Report(level=report["evidence"], where=report["device"], rows=report["results"])


def table(reports: Sequence[Report]) -> str:
    """The Markdown document."""
    lines = [LEGEND]
    lines += ["| operator | implementation | dtype | level | cases | worst error / budget | on |"]
    lines += ["|---|---|---|---|---|---|---|"]
    unproven: set[str] = set()
    proven: set[str] = set()
    for report in reports:
        for key, rows in _groups(report.rows):
            tally = Counter(row["status"] for row in rows)
            name = f"{key[0]} `{key[1]}`"
            if not tally["passed"] and not tally["failed"]:
                unproven.add(name)
                continue
            proven.add(name)
            lines.append(_row(key, rows, tally, report))
    missing = sorted(unproven - proven)
    if missing:
        lines += ["", "Refused in every case of these reports, so without evidence:", ""]
        lines += [f"- {name}" for name in missing]
    return "\n".join(lines) + "\n"


def _groups(
    rows: list[dict[str, Any]],
) -> Iterator[tuple[tuple[str, str, str], list[dict[str, Any]]]]:
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["op"], row["impl"], row["dtype"]), []).append(row)
    yield from groups.items()


def _row(
    key: tuple[str, str, str], rows: list[dict[str, Any]], tally: Counter[str], report: Report
) -> str:
    op, impl, dtype = key
    level = "E4" if (op, impl) in report.measured else report.level
    cases = f"{tally['passed']} passed"
    if tally["failed"]:
        level, cases = "none", f"{cases}, **{tally['failed']} failed**"
    ratios = [row["error"] / row["budget"] for row in rows if row["error"] is not None]
    worst = f"{max(ratios):.2f}" if ratios else ""
    return f"| {op} | `{impl}` | {dtype} | {level} | {cases} | {worst} | {report.where} |"


def main(arguments: list[str] | None = None) -> int:
    """Write the table; 0, or 2 with a sentence for a report or an output that is no use."""
    parser = argparse.ArgumentParser(description="Make the evidence table from reports.")
    parser.add_argument("reports", nargs="+", metavar="[LEVEL:WHERE=]FILE")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        document = table([read_report(argument) for argument in options.reports])
        with atomic_path(options.output) as temporary:
            temporary.write_text(document, encoding="utf-8")
    except StepVideoError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
