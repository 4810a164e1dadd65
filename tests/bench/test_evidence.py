"""The evidence table says what the records say, and the records cover what is registered."""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from stepvideo_bench.device_check import evidence
from stepvideo_core.dispatch import Backend, BackendRegistry
from stepvideo_core.errors import InvalidRequest
from stepvideo_core.ops import CONTRACTS, OpImpl
from stepvideo_core.plugins import ENTRY_POINT_GROUP, load_registry
from stepvideo_core.plugins.manager import build_registry
from stepvideo_core.testing import run_parity
from stepvideo_core.testing.evidence import (
    DTYPE_NAMES,
    covered,
    evidence_table,
    parity_record,
    read_records,
    registered,
)
from stepvideo_reference.backend import reference_backend

ROOT = Path(__file__).resolve().parents[2]
# What `make evidence` reads.
SOURCES = [ROOT / "benchmarks" / "results" / name for name in ("parity", "ops")]


def test_the_table_is_up_to_date() -> None:
    """Mended by `make evidence`."""
    text = (ROOT / "docs" / "EVIDENCE.md").read_text(encoding="utf-8")
    assert text == evidence_table(read_records(SOURCES))


@pytest.mark.parametrize("backend", ["reference", "numpy64"])
def test_records_cover_what_is_registered(backend: str) -> None:
    """Mended by `make records`."""
    assert covered(read_records(SOURCES), backend) == registered(load_registry(), backend)


@pytest.mark.skipif(find_spec("triton") is None, reason="published for Linux only")
def test_records_cover_the_interpreted_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mended by `make records`, which interprets them for a few minutes."""
    monkeypatch.setenv("STEPVIDEO_CUDA_INTERPRET", "1")
    registry = build_registry(entry_points(group=ENTRY_POINT_GROUP))
    assert covered(read_records(SOURCES), "cuda") == registered(registry, "cuda")
    assert registry.get("cuda").emulation
    runs = [run for _, record in read_records(SOURCES) for run in record.get("runs", ())]
    assert [run["level"] for run in runs if run["backend"] == "cuda"] == ["E2"]


def test_every_working_backend_has_a_record() -> None:
    """A new backend that works here must be in the table."""
    records = read_records(SOURCES)
    registry = load_registry()
    working = [name for name in registry.names if registry.implementations(name)]
    assert [name for name in working if not covered(records, name)] == []


def test_nothing_in_the_records_failed() -> None:
    entries = [entry for _, record in read_records(SOURCES) for entry in record.get("entries", ())]
    assert entries
    assert [entry for entry in entries if entry["failed"]] == []


def _registry(factor: float, emulation: str = "") -> BackendRegistry:
    registry = BackendRegistry()
    registry.add(reference_backend())
    eager = torch.nn.functional.gelu
    impl = OpImpl(
        op=CONTRACTS["gelu_tanh"],
        name="planted",
        fn=lambda x: eager(x, approximate="tanh") * factor,
        why_not=lambda site: ["not in float64"] if site.dtype == torch.float64 else [],
    )
    registry.add(
        Backend(
            name="mine",
            device_type="cpu",
            why_not=list,
            load=lambda: [impl],
            emulation=emulation,
        )
    )
    return registry


def _table(registry: BackendRegistry) -> str:
    results = list(run_parity(registry, backends=["mine"]))
    record = json.loads(json.dumps(parity_record(results, registry)))
    return evidence_table([("mine.json", record)])


def test_a_new_backend_is_in_the_table_by_registering() -> None:
    line = next(line for line in _table(_registry(1.0)).splitlines() if "mine:planted" in line)
    cells = [cell.strip() for cell in line.split("|")[2:-1]]
    assert len(cells) == len(DTYPE_NAMES)
    assert [cell.split()[0] for cell in cells] == ["E3", "E3", "E3", "-"]


def test_an_emulation_is_a_lower_rung() -> None:
    table = _table(_registry(1.0, "a simulator"))
    assert "| mine | E2 | a simulator |" in table
    assert "E2 (" in table and "E3 (" not in table


def test_times_of_an_emulation_are_no_evidence() -> None:
    record = {
        "kind": "ops",
        "environment": {
            "machine": {"device": "cpu", "cpu": "x"},
            "when": "2026-01-01",
            "versions": {},
            "emulated": {"mine": "a simulator"},
        },
        "rows": [
            {"op": "linear", "impl": f"{name}:x", "dtype": "float32", "status": "measured"}
            for name in ("mine", "other")
        ],
    }
    table = evidence_table([("a.json", record)])
    assert "| `other:x` | E4 |" in table and "mine:x" not in table


def test_a_planted_error_is_failed_evidence() -> None:
    assert "**failed** (" in _table(_registry(1.1))


def test_what_is_no_record_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for text in ("[]", "{}", "no", '{"kind": "model"}'):
        path.write_text(text)
        with pytest.raises(InvalidRequest, match="is no record"):
            read_records([path])


def test_a_device_check_shows_numbers_and_times() -> None:
    registry = _registry(1.0)
    rows = [result.as_json() for result in run_parity(registry, backends=["mine"])]
    times = [
        {"op": "gelu_tanh", "impl": impl, "dtype": "bfloat16", "status": status}
        for impl, status in (
            ("mine:planted", "measured"),
            ("mine:other", "refused"),
            ("reference:eager", "measured"),
        )
    ]
    record = evidence({"sections": {"parity": rows, "kernels": times}}, registry)
    table = evidence_table([("evidence.json", json.loads(json.dumps(record)))])
    assert "| `mine:planted` | E3 (" in table
    assert "| E3 E4 (" in table
    assert "mine:other" not in table and "reference:eager" not in table
