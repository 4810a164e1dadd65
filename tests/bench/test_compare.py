"""`bench compare`: planted slowdowns are found, noise is not called, strangers are refused."""

from __future__ import annotations

import copy
import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepvideo_bench.compare import (
    NotComparable,
    compare_records,
    judge,
    median_ratio,
    parse_threshold,
)
from stepvideo_bench.revisions import is_revision, pooled, unpack
from stepvideo_bench.rows import OpsRecord, read_any
from stepvideo_core.errors import InvalidRequest

ROOT = Path(__file__).resolve().parents[2]


def noisy(seconds: float, noise: float, seed: int, count: int = 20) -> list[float]:
    generator = random.Random(seed)
    return [seconds * generator.lognormvariate(0.0, noise) for _ in range(count)]


@pytest.fixture
def record(tiny_record: OpsRecord) -> dict[str, Any]:
    """A real record with the samples of a machine that varies by 2 %."""
    value = json.loads(json.dumps(tiny_record.as_json()))
    for index, row in enumerate(value["rows"]):
        if row["samples"]:
            row["samples"] = noisy(row["median_s"], 0.02, index)
    for name in ("gemm_samples", "copy_samples"):
        value["ceilings"][name] = noisy(1e-3, 0.02, 99)
    return value


def rerun(record: dict[str, Any], factor: float = 1.0, row: int = 0, seed: int = 1000) -> Any:
    """The same machine once more; one row `factor` times as slow."""
    again = copy.deepcopy(record)
    for index, other in enumerate(again["rows"]):
        if other["samples"]:
            slowed = factor if index == row else 1.0
            other["samples"] = noisy(other["median_s"] * slowed, 0.02, seed + index)
    for name in ("gemm_samples", "copy_samples"):
        again["ceilings"][name] = noisy(1e-3, 0.02, seed + 500)
    return again


def test_a_run_and_itself_do_not_differ(record: dict[str, Any]) -> None:
    report = compare_records(record, record, 0.05)
    assert {row.verdict for row in report.comparisons} == {"same"}
    assert {row.ratio for row in report.comparisons} == {1.0}
    assert report.slower == () and report.notes == () and report.drift == 0


def test_a_planted_slowdown_of_20_percent_is_found(record: dict[str, Any]) -> None:
    report = compare_records(record, rerun(record, 1.2), 0.05)
    verdicts = [row.verdict for row in report.comparisons]
    assert verdicts[0] == "slower"
    assert set(verdicts[1:]) <= {"same", "unclear"}
    assert report.comparisons[0].low < 1.2 < report.comparisons[0].high
    faster = compare_records(rerun(record, 1.2), record, 0.05)
    assert faster.comparisons[0].verdict == "faster" and faster.slower == ()


def test_a_machine_that_slowed_down_itself_is_no_verdict(record: dict[str, Any]) -> None:
    busy = rerun(record, 1.2)
    for name in ("gemm_samples", "copy_samples"):
        busy["ceilings"][name] = [1.3 * value for value in busy["ceilings"][name]]
    report = compare_records(record, busy, 0.05)
    assert report.slower == ()
    assert report.drift == pytest.approx(0.3, abs=0.05)
    assert "the machine was not the same" in report.notes[0]


def test_two_real_runs_agree_within_their_intervals() -> None:
    """The committed record and the same run a little later on the quiet machine."""
    folder = ROOT / "benchmarks" / "results" / "ops"
    name = "cpu-epyc-2core.json"
    report = compare_records(read_any(folder / name), read_any(folder / "repeated" / name), 0.05)
    assert len(report.comparisons) > 150
    outside = [row.row for row in report.comparisons if not row.low <= 1 <= row.high]
    assert outside == []
    assert report.slower == ()


@settings(max_examples=40, deadline=None)
@given(noise=st.floats(0.0, 0.3), seed=st.integers(0, 10_000))
def test_noise_alone_is_never_called_slower(noise: float, seed: int) -> None:
    """Two draws of one distribution: an interval of 99 % may miss 1, but not by 5 %."""
    _, low, high = median_ratio(noisy(1.0, noise, seed), noisy(1.0, noise, seed + 1))
    assert low <= high
    assert judge(low, high, 0.05 + noise) != "slower"


@settings(max_examples=40, deadline=None)
@given(factor=st.floats(1.2, 5.0), seed=st.integers(0, 10_000))
def test_a_real_slowdown_is_always_found_in_little_noise(factor: float, seed: int) -> None:
    _, low, high = median_ratio(noisy(1.0, 0.02, seed), noisy(factor, 0.02, seed + 1))
    assert judge(low, high, 0.05) == "slower"


def test_few_samples_give_no_narrow_interval() -> None:
    assert median_ratio([1.0, 1.1], [1.0, 1.2]) == (pytest.approx(1.1 / 1.05), 1 / 1.1, 1.2)


def test_verdicts() -> None:
    assert judge(1.06, 1.2, 0.05) == "slower"
    assert judge(1.04, 1.2, 0.05) == "unclear"
    assert judge(0.98, 1.02, 0.05) == "same"
    assert judge(0.5, 0.9, 0.05) == "faster"


@pytest.mark.parametrize(("text", "share"), [("5%", 0.05), ("0.1", 0.1), (" 20 % ", 0.2)])
def test_thresholds(text: str, share: float) -> None:
    assert parse_threshold(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "five", "-1%", "nan", "2000%"])
def test_thresholds_that_are_none(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"write 5% or 0\.05"):
        parse_threshold(text)


def test_another_machine_is_refused(record: dict[str, Any]) -> None:
    other = copy.deepcopy(record)
    other["environment"]["machine"]["threads"] = 64
    with pytest.raises(NotComparable, match="threads is 1 in A and 64 in B"):
        compare_records(record, other, 0.05)
    cold = copy.deepcopy(record)
    cold["settings"]["cache"] = "cold"
    with pytest.raises(NotComparable, match="cache is 'warm' in A and 'cold' in B"):
        compare_records(record, cold, 0.05)
    with pytest.raises(NotComparable, match="of kind model"):
        compare_records(record, copy.deepcopy(record) | {"kind": "model"}, 0.05)
    with pytest.raises(NotComparable, match="no measured row in common"):
        compare_records(record, copy.deepcopy(record) | {"rows": []}, 0.05)


def test_what_changed_is_noted(record: dict[str, Any]) -> None:
    other = rerun(record)
    other["environment"]["versions"]["torch"] = "9.9"
    other["plan"][0]["impl"] = "mine:new"
    other["rows"] = other["rows"][1:]
    notes = "\n".join(compare_records(record, other, 0.05).notes)
    assert "in A, 9.9 in B" in notes
    assert "mine:new" in notes
    assert "1 measured rows are in A only" in notes


def test_pooled_runs_keep_all_samples(record: dict[str, Any]) -> None:
    count = len(record["rows"][0]["samples"])
    assert len(pooled([record, rerun(record)])["rows"][0]["samples"]) == 2 * count


def test_revisions_are_unpacked_without_touching_the_repository(tmp_path: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    assert is_revision("HEAD", ROOT) and not is_revision("no-such-branch", ROOT)
    before = subprocess.run(["git", "-C", ROOT, "status", "--porcelain"], capture_output=True)
    tracked = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "--error-unmatch", "stepvideo_core/cli/bench_ops.py"],
        capture_output=True,
    )
    if tracked.returncode == 0:
        assert (unpack("HEAD", ROOT, tmp_path / "a") / "pyproject.toml").is_file()
    after = subprocess.run(["git", "-C", ROOT, "status", "--porcelain"], capture_output=True)
    assert before.stdout == after.stdout
    with pytest.raises(InvalidRequest, match="git cannot unpack 'no-such-branch'"):
        unpack("no-such-branch", ROOT, tmp_path / "b")
