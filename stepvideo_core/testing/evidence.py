"""What has been shown of every implementation, how, and on what: records and the table of them.

The ladder: E1, the calls fit the vendor's real package; E2, the numbers are right under an
interpreter or an emulation; E3, they are right on the device; E4, the speed was measured there.
A record is a small JSON file; `docs/EVIDENCE.md` is made from the records alone, so that nothing in
it claims more than somebody ran.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from stepvideo_core.dispatch.registry import Backend, BackendRegistry
from stepvideo_core.errors import InvalidRequest
from stepvideo_core.record import versions
from stepvideo_core.testing.parity import DTYPES, ParityResult, device_of

RECORD_FORMAT = 1
DTYPE_NAMES = tuple(str(dtype).removeprefix("torch.") for dtype in DTYPES)
LADDER = {
    "E1": "its calls fit the vendor's real package: schemas and shape functions",
    "E2": "its numbers are right under an interpreter or an emulation; where that stands behind "
    "the vendor's real package, every call has passed E1 on the way",
    "E3": "its numbers are right on the device",
    "E4": "its speed has been measured on the device",
}

Key = tuple[str, str, str]


def level_of(backend: Backend) -> str:
    """What a passed parity case of this backend shows here: E2 where it is emulated, else E3."""
    return "E2" if backend.emulation else "E3"


def parity_record(
    results: Sequence[ParityResult],
    registry: BackendRegistry,
    measured: Iterable[Key] = (),
) -> dict[str, Any]:
    """A record of a parity run: where it ran, and one entry per operator x implementation x dtype.

    An entry counts its cases and keeps the one whose error is the largest share of its budget.
    measured: what was timed on the same occasion.
    """
    names = dict.fromkeys(result.impl.split(":")[0] for result in results)
    return {
        "format": RECORD_FORMAT,
        "kind": "parity",
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "versions": versions(),
        "runs": [run_of(registry.get(name)) for name in names],
        "entries": summarise(results),
        "measured": [list(key) for key in measured],
    }


def run_of(backend: Backend) -> dict[str, str]:
    """How a backend's numbers come about here."""
    return {
        "backend": backend.name,
        "level": level_of(backend),
        "on": backend.emulation or str(device_of(backend)),
    }


def summarise(results: Iterable[ParityResult]) -> list[dict[str, Any]]:
    """One entry per operator x implementation x dtype, in the order of the results."""
    groups: dict[Key, list[ParityResult]] = {}
    for result in results:
        groups.setdefault((result.op, result.impl, result.dtype), []).append(result)
    return [_entry(key, group) for key, group in groups.items()]


def _entry(key: Key, group: Sequence[ParityResult]) -> dict[str, Any]:
    counts = {
        status: sum(result.status == status for result in group)
        for status in ("passed", "failed", "skipped")
    }
    judged = [result for result in group if result.error is not None and result.budget]
    worst = max(judged, key=share_of_budget, default=None)
    reasons = [reason for result in group for reason in result.reasons]
    return {
        **dict(zip(("op", "impl", "dtype"), key, strict=True)),
        **counts,
        "case": None if worst is None else f"{worst.site}-{worst.case}",
        "error": None if worst is None else worst.error,
        "budget": None if worst is None else worst.budget,
        "reason": reasons[0] if reasons else None,
    }


def share_of_budget(result: ParityResult) -> float:
    """Error over budget; 0 for a case that was not judged."""
    if result.error is None or not result.budget:
        return 0.0
    return result.error / result.budget


def read_records(paths: Iterable[Path]) -> list[tuple[str, dict[str, Any]]]:
    """(name, record) of files, and of all .json files directly in folders, sorted by name.

    Takes the records of `parity --record` and of the device check (`evidence.json`), the objects of
    `parity --json` and those of `bench ops`.
    Raises InvalidRequest for anything else.
    """
    files: list[Path] = []
    for path in paths:
        files += sorted(path.glob("*.json")) if path.is_dir() else [path]
    records = []
    for path in files:
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InvalidRequest(f"{path} is no record: {error}") from None
        records.append((path.name, _normalised(value, path)))
    return records


def _normalised(value: Any, path: Path) -> dict[str, Any]:
    if isinstance(value, dict) and "results" in value and "record" in value:
        value = value["record"]
    kind = value.get("kind") if isinstance(value, dict) else None
    if kind not in ("parity", "ops"):
        raise InvalidRequest(
            f"{path} is no record of `stepvideo parity --record` or `stepvideo bench ops`"
        )
    return dict(value)


def entries_of(record: Mapping[str, Any]) -> dict[Key, tuple[set[str], dict[str, Any]]]:
    """(op, impl, dtype) -> (levels shown, entry) of a parity record or a benchmark."""
    found: dict[Key, tuple[set[str], dict[str, Any]]] = {}
    if record["kind"] == "ops":
        # The time of an emulation says nothing about the device.
        emulated = record["environment"].get("emulated", {})
        for row in record["rows"]:
            if row["status"] == "measured" and row["impl"].split(":")[0] not in emulated:
                found[row["op"], row["impl"], row["dtype"]] = ({"E4"}, {})
        return found
    levels = {run["backend"]: run["level"] for run in record["runs"]}
    for entry in record["entries"]:
        key = (entry["op"], entry["impl"], entry["dtype"])
        shown = entry["passed"] and not entry["failed"]
        found[key] = ({levels[entry["impl"].split(":")[0]]} if shown else set(), entry)
    for op, impl, dtype in record["measured"]:
        if levels[impl.split(":")[0]] == "E3":
            shown, entry = found.get((op, impl, dtype), (set(), {}))
            found[op, impl, dtype] = (shown | {"E4"}, entry)
    return found


def covered(records: Iterable[tuple[str, Mapping[str, Any]]], backend: str) -> set[Key]:
    """What the parity records say about a backend, whatever they say."""
    return {
        key
        for _, record in records
        if record["kind"] == "parity"
        for key in entries_of(record)
        if key[1].split(":")[0] == backend
    }


def registered(registry: BackendRegistry, backend: str) -> set[Key]:
    """Every operator x implementation x dtype that a backend brings here."""
    return {
        (impl.op.name, f"{backend}:{impl.name}", dtype)
        for impl in registry.implementations(backend)
        for dtype in DTYPE_NAMES
    }


def evidence_table(records: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """`docs/EVIDENCE.md`: the ladder, what ran where, and a table per operator."""
    levels: dict[Key, set[str]] = {}
    entries: dict[Key, dict[str, Any]] = {}
    for _, record in records:
        for key, (shown, entry) in entries_of(record).items():
            levels.setdefault(key, set()).update(shown)
            if entry and _is_worse(entry, entries.get(key)):
                entries[key] = entry
    lines = [
        "# Evidence",
        "",
        "What has been shown of every implementation. Made by `make evidence` from the records",
        "named below; a test fails when it is stale or an implementation is missing.",
        "",
        *(f"- **{name}**: {text}" for name, text in LADDER.items()),
        "",
        "A cell says which rungs an implementation has reached in a dtype and, in brackets, the",
        "largest error of any parity case as a share of what it may be (at 100 % it would fail).",
        "`-`: it refuses every case in that dtype, which is not a failure.",
        "",
        "| record | what | shows | on | when | versions |",
        "|---|---|---|---|---|---|",
        *(line for name, record in records for line in _sources(name, record)),
    ]
    operators = dict.fromkeys(op for op, _, _ in levels)
    for op in operators:
        impls = dict.fromkeys(impl for other, impl, _ in levels if other == op)
        lines += ["", f"## {op}", "", f"| implementation | {' | '.join(DTYPE_NAMES)} |"]
        lines.append("|---|" + "---|" * len(DTYPE_NAMES))
        for impl in impls:
            cells = [
                _cell(levels.get((op, impl, dtype)), entries.get((op, impl, dtype)))
                for dtype in DTYPE_NAMES
            ]
            lines.append(f"| `{impl}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _is_worse(entry: Mapping[str, Any], other: Mapping[str, Any] | None) -> bool:
    if other is None or entry["failed"] > other["failed"]:
        return True
    shares = [(e["error"] or 0.0) / (e["budget"] or 1.0) for e in (entry, other)]
    return shares[0] > shares[1]


def _sources(name: str, record: Mapping[str, Any]) -> list[str]:
    if record["kind"] == "ops":
        environment = record["environment"]
        machine = environment["machine"]
        where = machine["device"] if machine["device"] != "cpu" else machine["cpu"]
        runs = [("benchmark", "E4", where)]
        when, software = environment["when"], environment["versions"]
    else:
        runs = [(run["backend"], run["level"], run["on"]) for run in record["runs"]]
        when, software = record["when"], record["versions"]
    shown = ", ".join(f"{key} {value}" for key, value in software.items())
    return [
        f"| `{name}` | {what} | {level} | {place} | {when[:10]} | {shown} |"
        for what, level, place in runs
    ]


def _cell(levels: set[str] | None, entry: Mapping[str, Any] | None) -> str:
    if levels is None:
        return ""
    if entry and entry["failed"]:
        return f"**failed** ({entry['failed']} cases)"
    if not levels:
        return "-"
    text = " ".join(sorted(levels))
    if entry and entry["error"] is not None:
        text += f" ({100 * entry['error'] / entry['budget']:.0f} %)"
    return text
