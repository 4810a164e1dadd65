"""What each chip is offered and refused, with fabricated chips: pure logic, no device."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from stepvideo_ascend.attention import LIMITS, mindie_refusals, refusals
from stepvideo_ascend.capability import Capability
from stepvideo_ascend.norm import row_refusals
from stepvideo_ascend.rope import refusals as rope_refusals
from stepvideo_core.ops import AttentionSite, RMSNormSite, RopeSite, Site

_GIB = 1 << 30
A910 = Capability(name="Ascend910ProB", memory=32 * _GIB)
A2 = Capability(name="Ascend910B2", memory=64 * _GIB)
A3 = Capability(name="Ascend910_9391", memory=64 * _GIB)
INFERENCE = Capability(name="Ascend310P3", memory=44 * _GIB)
A950 = Capability(name="Ascend950PR_9589", memory=112 * _GIB)
FUTURE = Capability(name="Ascend1000", memory=128 * _GIB)
BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32

SELF = AttentionSite(name="dit.self", num_heads=48, num_kv_heads=48, head_dim=128, dtype=BF16)
CROSS = replace(SELF, name="dit.cross", key_lengths=True)
MID = replace(SELF, name="vae.mid", num_heads=1, num_kv_heads=1, head_dim=512, causal=True)
LLM = replace(SELF, name="step_llm.self", num_kv_heads=8, causal=True, sqrt_bias=True)


def _accepting(chip: Capability, site: Site) -> set[str]:
    if chip.refusals(site.dtype):
        return set()
    return {name for name, limits in LIMITS.items() if not refusals(limits, site, chip)}


@pytest.mark.parametrize(
    ("chip", "generation", "bfloat16"),
    [
        (A910, "910A", False),
        (A2, "A2", True),
        (A3, "A3", True),
        (INFERENCE, "310P", False),
        (A950, "950", True),
        (FUTURE, "unknown", True),
    ],
    ids=lambda value: str(value),
)
def test_generations(chip: Capability, generation: str, bfloat16: bool) -> None:
    assert chip.generation == generation
    assert chip.has_bfloat16 is bfloat16
    assert bool(chip.refusals(BF16)) is not bfloat16
    assert chip.refusals(FP16) == chip.refusals(FP32) == []
    assert chip.refusals(torch.float64) == ["NPUs do not compute in float64"]


@pytest.mark.parametrize("chip", [A2, A3, A950, FUTURE], ids=str)
@pytest.mark.parametrize("site", [SELF, CROSS, MID], ids=lambda site: site.name)
def test_servers_have_both_fused_operators(chip: Capability, site: Site) -> None:
    assert _accepting(chip, site) == {"fusion", "fused_infer"}
    assert _accepting(chip, replace(site, dtype=FP16)) == {"fusion", "fused_infer"}
    assert _accepting(chip, replace(site, dtype=FP32)) == {"fusion"}


def test_inference_cards_have_one_in_float16_without_masks() -> None:
    assert _accepting(INFERENCE, SELF) == set()
    assert _accepting(INFERENCE, replace(SELF, dtype=FP16)) == {"prompt_flash"}
    assert _accepting(INFERENCE, replace(CROSS, dtype=FP16)) == {"prompt_flash"}
    assert _accepting(INFERENCE, replace(MID, dtype=FP16)) == set()
    assert _accepting(A910, replace(SELF, dtype=FP16)) == set()


@pytest.mark.parametrize("chip", [A910, A2, A3, INFERENCE, A950, FUTURE], ids=str)
@pytest.mark.parametrize("dtype", [BF16, FP16, FP32])
def test_the_position_bias_reaches_no_fused_operator(chip: Capability, dtype: torch.dtype) -> None:
    for limits in LIMITS.values():
        reasons = refusals(limits, replace(LLM, dtype=dtype), chip)
        assert any("48 x S x S logits, 19 MiB at S = 320" in reason for reason in reasons)


@pytest.mark.parametrize(
    ("name", "chip", "site", "sentence"),
    [
        ("fusion", A2, replace(SELF, head_dim=800), "head_dim 800 > 768"),
        ("fused_infer", A2, replace(SELF, head_dim=640), "head_dim 640 > 512"),
        (
            "fused_infer",
            A2,
            replace(SELF, head_dim=100),
            "head_dim 100 is 200 bytes, not a multiple of 32",
        ),
        (
            "fused_infer",
            A2,
            replace(SELF, dtype=FP32),
            "it takes bfloat16, float16, not float32",
        ),
        ("fusion", A2, replace(SELF, num_heads=288, num_kv_heads=288), "288 heads > 256"),
        (
            "fused_infer",
            A2,
            replace(SELF, num_heads=130, num_kv_heads=2),
            "130 query heads for 2 key heads; it takes 64 per key head at most",
        ),
        ("fusion", INFERENCE, SELF, "it is for A2, A3, 950; this is Ascend310P3 (310P)"),
        ("prompt_flash", A2, SELF, "it is for 310P; this is Ascend910B2 (A2)"),
        ("prompt_flash", INFERENCE, MID, "it takes no causal mask here"),
    ],
)
def test_refusals_say_why_with_numbers(
    name: str, chip: Capability, site: Site, sentence: str
) -> None:
    assert sentence in refusals(LIMITS[name], site, chip)


def test_mindie_is_for_long_dense_half_precision() -> None:
    assert mindie_refusals(SELF, A2) == []
    assert "its kernel is for A2, A3; this is Ascend950PR_9589 (950)" in mindie_refusals(SELF, A950)
    assert "head_dim 512 > 128" in mindie_refusals(MID, A3)
    for site in (CROSS, MID, LLM, replace(SELF, dtype=FP32)):
        assert mindie_refusals(site, A2)


def test_limits_outside_attention() -> None:
    short = RMSNormSite(name="dit.cross", width=8, dtype=FP16)
    assert row_refusals(short, INFERENCE) == ["rows of 16 bytes < 32 on Ascend310P3 (310P)"]
    assert row_refusals(short, A2) == row_refusals(replace(short, width=16), INFERENCE) == []
    rope = RopeSite(name="dit.self", num_heads=48, head_dim=128, axes=(64, 32, 32))
    assert rope_refusals(rope) == []
    assert rope_refusals(replace(rope, axes=(66, 31, 31))) == ["an axis of 31 channels is odd"] * 2
    assert rope_refusals(replace(rope, num_heads=1000)) == ["1000 heads > 999"]
    assert rope_refusals(replace(rope, axes=(896, 2, 2))) == ["an axis of 896 channels > 895"]
