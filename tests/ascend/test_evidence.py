"""The evidence table claims what its reports show, and nothing more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stepvideo_bench.evidence import main, read_report, table
from stepvideo_core.errors import InvalidRequest

ROOT = Path(__file__).resolve().parents[2]


def row(impl: str, status: str, dtype: str = "bfloat16", error: float | None = 4e-3) -> Any:
    measured = {"error": error, "budget": 8e-3 if error is not None else None}
    return {"op": "attention", "impl": impl, "dtype": dtype, "status": status} | measured


@pytest.fixture
def virtual(tmp_path: Path) -> Path:
    rows = [
        row("npu:fusion", "passed"),
        row("npu:fusion", "passed", error=6e-3),
        row("npu:fusion", "skipped", error=None),
        row("npu:chunked", "passed"),
        row("npu:chunked", "failed", error=1e-2),
        row("npu:mindie", "skipped", error=None),
        row("npu:fused_infer", "passed"),
        row("npu:fused_infer", "skipped", "float32", None),
    ]
    path = tmp_path / "virtual.json"
    path.write_text(json.dumps({"results": rows, "evidence": "E2", "device": "a virtual chip"}))
    return path


def test_levels_counts_and_what_has_none(virtual: Path) -> None:
    lines = table([read_report(str(virtual))]).splitlines()
    rows = [line for line in lines if line.startswith("| attention")]
    assert rows == [
        "| attention | `npu:fusion` | bfloat16 | E2 | 2 passed | 0.75 | a virtual chip |",
        "| attention | `npu:chunked` | bfloat16 | none | 1 passed, **1 failed** | 1.25 "
        "| a virtual chip |",
        "| attention | `npu:fused_infer` | bfloat16 | E2 | 1 passed | 0.50 | a virtual chip |",
    ]
    assert lines[-1] == "- attention `npu:mindie`"


def test_a_device_check_is_e3_and_e4_where_speed_was_measured(tmp_path: Path) -> None:
    path = tmp_path / "device_check.json"
    kernels = [{"op": "attention", "impl": "npu:fusion", "status": "measured"}]
    parity = [row("npu:fusion", "passed"), row("npu:chunked", "passed"), {"status": "skipped"}]
    report = {
        "environment": {"device": "Ascend910B2"},
        "sections": {"parity": parity, "kernels": kernels},
    }
    path.write_text(json.dumps(report))
    text = table([read_report(str(path))])
    assert "| attention | `npu:fusion` | bfloat16 | E4 | 1 passed | 0.50 | Ascend910B2 |" in text
    assert "| attention | `npu:chunked` | bfloat16 | E3 | 1 passed | 0.50 | Ascend910B2 |" in text


def test_a_report_without_a_label_needs_one(tmp_path: Path) -> None:
    path = tmp_path / "plain.json"
    path.write_text(json.dumps({"results": [row("reference:eager", "passed")]}))
    with pytest.raises(InvalidRequest, match="does not say what it is evidence of"):
        read_report(str(path))
    assert "| E3 | 1 passed | 0.50 | the CPU |" in table([read_report(f"E3:the CPU={path}")])


def test_what_is_no_report_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, other = tmp_path / "broken.json", tmp_path / "other.json"
    broken.write_text("{")
    other.write_text("{}")
    for path in (broken, other, tmp_path / "missing.json"):
        assert main([str(path), "-o", str(tmp_path / "out.md")]) == 2
        assert capsys.readouterr().err.startswith(f"error: {path} is n")
    assert not (tmp_path / "out.md").exists()


def test_the_published_table_claims_no_device_for_the_npu() -> None:
    text = (ROOT / "docs" / "EVIDENCE.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if "| `npu:" in line]
    assert len(rows) > 30
    assert {cells[3] for cells in rows} == {"E2"}
    assert all("virtual" in cells[-1] for cells in rows)
