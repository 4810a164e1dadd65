"""`bench model`: what is measured, what is extrapolated and said so, what does not fit."""

from __future__ import annotations

from typing import Any

import pytest

from stepvideo_bench import model
from stepvideo_bench.model import BenchRequest, measure, model_record


def request(name: str, **changes: Any) -> BenchRequest:
    settings: dict[str, Any] = {
        "preset": "tiny",
        "repeats": 2,
        "threads": None,
        "profile": False,
        "backend": "auto",
        "ops": (),
        "allow_fallback": True,
        "device": "cpu",
        "dtype": None,
    }
    return BenchRequest(name=name, **settings | changes)


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("block", "tokens_per_second"),
        ("vae", "frames_per_second"),
        ("step_llm", "tokens_per_second"),
        ("clip", "tokens_per_second"),
    ],
)
def test_each_model_has_a_rate_and_a_share_of_the_roof(name: str, rate: str) -> None:
    row = measure(request(name))
    assert row["status"] == "measured"
    assert len(row["seconds"]) == 2
    assert row[rate] > 0 and row["flops"] > 0
    assert row["ceiling_pct"] == pytest.approx(100 * row["roof_s"] / row["median_s"])
    assert row["peak_bytes"] >= row["start_bytes"] > 0
    assert model_record([row])["kind"] == "model"


def test_a_shallow_measurement_is_extrapolated_and_says_so() -> None:
    row = measure(request("dit", layers=2))
    found = row["extrapolated"]
    assert found["from_layers"] == [1, 2] and found["to_layers"] == 3
    assert len(row["seconds"]) == 2
    whole = measure(request("dit", layers=3))
    assert "extrapolated" not in whole, "three layers are the whole of tiny"
    assert row["flops"] == whole["flops"]


def test_a_run_tells_its_stages_and_its_first_frame() -> None:
    row = measure(request("run", repeats=1, threads=1))
    assert {"denoise", "decode"} <= {stage["name"] for stage in row["stages"]}
    assert all(stage["host_peak_bytes"] > 0 for stage in row["stages"])
    assert 0 < row["first_frame_s"] <= row["median_s"]
    assert row["frames_per_second"] > 0 and row["flops"] is None


def test_what_does_not_fit_is_skipped_with_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "available_memory", lambda device: 10 * 2**30)
    row = measure(request("dit", preset="51f", dtype="bfloat16"))
    assert row["status"] == "skipped"
    assert "needs 5" in row["reasons"][0] and "cpu has 10.0 GiB" in row["reasons"][0]
    assert "--layers 2" in row["reasons"][0]
