"""Predictions: the roofline of the official run, what fits, and the error where it is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stepvideo_bench.advice import advise
from stepvideo_bench.checking import check_published, check_records
from stepvideo_bench.devices import DEVICES, datasheet_of, find_device
from stepvideo_bench.explain import Explanation, Rates, explain, measured_shares
from stepvideo_bench.presets import PRESETS
from stepvideo_core.config import STEP_VIDEO_T2V, TINY, ModelConfig
from stepvideo_core.errors import InvalidRequest
from stepvideo_core.request import GenerationSettings, build_settings

BF16 = torch.bfloat16
# The whole depth only multiplies; two layers are recorded in a blink.
SHALLOW = replace(
    STEP_VIDEO_T2V,
    transformer=replace(STEP_VIDEO_T2V.transformer, num_layers=2),
    step_llm=replace(STEP_VIDEO_T2V.step_llm, num_layers=2),
)


def predicted(
    config: ModelConfig, device: str, memory: int | None = None
) -> tuple[Explanation, GenerationSettings]:
    settings, _ = build_settings(config, "any", {})
    facts = find_device(device)
    explanation = explain(
        config,
        settings,
        dtype=BF16,
        device=facts.name,
        rates=Rates(*facts.rates(BF16), facts.source),
        memory=facts.memory if memory is None else memory,
    )
    return explanation, settings


def test_the_roof_of_the_official_denoising_on_h100() -> None:
    """1,379 s for 100 forwards of 48 layers: 8.5 s of attention and 5 s of products each."""
    explanation, _ = predicted(SHALLOW, "h100")
    denoise = explanation.stage("denoise")
    beside = next(op for op in denoise.ops if not op.site)
    roof = (denoise.roof_s - beside.roof_s) / 100 * 24
    assert roof == pytest.approx(13.79, rel=0.01)
    attention = next(op for op in denoise.ops if (op.op, op.site) == ("attention", "dit.self"))
    assert attention.roof_s / 100 * 24 == pytest.approx(8.513, rel=0.001)
    assert attention.bound == "compute" and not attention.measured
    assert attention.expected_s == pytest.approx(attention.roof_s / 0.75)
    assert explanation.fits
    decode = explanation.stage("decode")
    assert decode.flops / 1e12 == pytest.approx(3281, rel=0.001)


def test_a_card_that_is_too_small_is_told_what_fits() -> None:
    explanation, settings = predicted(SHALLOW, "rtx4090", memory=16 * 2**30)
    assert not explanation.fits
    advice = " ".join(advise(explanation, SHALLOW, settings, BF16))
    assert "decode needs" in advice
    found = next(text for text in advise(explanation, SHALLOW, settings, BF16) if "fits at" in text)
    assert "no number of frames" in found or "--frames" in found
    weights, _ = predicted(SHALLOW, "rtx4090", memory=2**30)
    told = " ".join(advise(weights, SHALLOW, settings, BF16))
    assert "the weights alone are too much" in told
    single = " ".join(advise(weights, SHALLOW, settings, torch.float32))
    assert "--dtype bfloat16 halves them" in single


def test_advice_names_the_bottleneck_with_numbers() -> None:
    explanation, settings = predicted(SHALLOW, "h100")
    first, *rest = advise(explanation, SHALLOW, settings, BF16)
    assert "attention at dit.self in denoise, bound by compute" in first
    assert any("15 steps saves" in text for text in rest)
    assert any("--cfg-scale 1" in text for text in rest)


def test_a_published_step_is_checked() -> None:
    explanation, settings = predicted(SHALLOW, "h20")
    (check,) = check_published(explanation, find_device("h20"), settings)
    assert check.measured_s == 213.6
    whole = replace(check, predicted_s=check.predicted_s * 24)
    assert abs(whole.error) < 0.25, "the prediction is off by more than it says"
    assert check_published(explanation, find_device("h100"), settings) == []


def test_measured_shares_replace_typical_ones() -> None:
    rows = [
        {"op": "linear", "site": "dit.self", "planned": True, "ceiling_pct": 40.0,
         "above_ceiling": False, "roof_s": 2.0},
        {"op": "linear", "site": "dit.self", "planned": True, "ceiling_pct": 90.0,
         "above_ceiling": False, "roof_s": 1.0},
        {"op": "linear", "site": "dit.ffn", "planned": True, "ceiling_pct": 140.0,
         "above_ceiling": True, "roof_s": 1.0},
        {"op": "linear", "site": "dit.cross", "planned": False, "ceiling_pct": 50.0,
         "above_ceiling": False, "roof_s": 1.0},
    ]  # fmt: skip
    shares = measured_shares([{"rows": rows}])
    assert shares == {("linear", "dit.self"): 0.4}
    settings, _ = build_settings(TINY, "any", {})
    explanation = explain(
        TINY,
        settings,
        dtype=torch.float32,
        device="x",
        rates=Rates(1e11, 1e10, "x"),
        memory=1 << 40,
        shares=shares,
        impls={("linear", "dit.self"): "mine:fast"},
    )
    ops = {(op.op, op.site): op for op in explanation.stage("denoise").ops}
    assert ops["linear", "dit.self"].measured and ops["linear", "dit.self"].share == 0.4
    assert ops["linear", "dit.self"].impl == "mine:fast"
    assert not ops["linear", "dit.cross"].measured


def test_records_are_checked_with_their_own_ceilings() -> None:
    ceilings = {"flops_per_second": 1e11, "bytes_per_second": 1e10}
    row = {"name": "dit", "preset": "tiny", "dtype": "float32", "median_s": 1.0}
    record = {"kind": "model", "rows": [row | {"ceilings": ceilings}, row, {**row, "name": "run"}]}
    (check,) = check_records([("a.json", record)], {})
    assert check.what == "dit at tiny, float32"
    assert 0 < check.predicted_s < 1 and check.error == pytest.approx(check.predicted_s - 1)


def test_devices_are_found_by_what_their_drivers_call_them() -> None:
    found = {
        "NVIDIA H100 80GB HBM3": "h100",
        "NVIDIA H200": "h200",
        "NVIDIA H20": "h20",
        "NVIDIA GeForce RTX 4090": "rtx4090",
        "Ascend910B2": None,
        "Tesla T4": None,
    }
    for reported, name in found.items():
        device = datasheet_of(reported)
        assert (None if device is None else device) == (DEVICES[name] if name else None), reported


def test_what_is_not_known_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="none of a100"):
        find_device("gtx1080")
    with pytest.raises(InvalidRequest, match="no public rate of Ascend 910B2 in float32"):
        find_device("910b2").rates(torch.float32)
    half, bandwidth = find_device("rtx4090").rates(BF16)
    assert half < 165.2e12 and bandwidth < 1.008e12


def test_presets_have_the_official_latents() -> None:
    assert PRESETS["204f"].dit_latents == (1, 36, 64, 34, 62)
    assert PRESETS["768sq"].tokens == 82_944
    assert PRESETS["51f"].tokens == 18_972


def test_this_file_needs_no_device(tmp_path: Path) -> None:
    for device in DEVICES.values():
        assert device.source and device.text.startswith(device.name)
        assert device.memory >= 24 * 10**9
