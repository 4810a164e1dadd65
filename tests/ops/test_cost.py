"""Operation and byte counts: against hand-derived numbers, and against torch's own counter."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from stepvideo_core.ops import CONTRACTS, Cost
from stepvideo_core.plugins import load_registry
from stepvideo_core.testing import CASES, Case
from stepvideo_core.testing.parity import eager_of

# One block of the 30B transformer at 544x992, 204 frames.
TOKENS, DIM, HEADS = 36 * 34 * 62, 6144, 48
STREAM = TOKENS * DIM * 2


def meta(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def cost(op: str, *arguments: Any) -> Cost:
    return CONTRACTS[op].cost(*arguments)


@pytest.mark.parametrize("name", CONTRACTS)
def test_a_cost_takes_the_operators_arguments(name: str) -> None:
    contract = CONTRACTS[name]
    assert tuple(inspect.signature(contract.cost).parameters) == contract.parameters


def test_a_block_of_the_official_model() -> None:
    """48 blocks at 75,888 tokens: 10,682 TFLOP, with the bytes worked out on paper."""
    weight = meta(DIM, DIM)
    qkv = cost("linear", meta(1, TOKENS, DIM), meta(3 * DIM, DIM), None)
    assert qkv.flops == 2 * TOKENS * DIM * 3 * DIM
    assert qkv.num_bytes == 4 * STREAM + 3 * DIM * DIM * 2
    head = (HEADS, 128)
    own = (meta(1, TOKENS, *head),) * 3
    self_attention = cost("attention", *own, 0.1, False, None, None)
    assert self_attention == Cost(4 * TOKENS * TOKENS * DIM, 4 * STREAM)
    assert round(48 * self_attention.flops / 1e12, 1) == 6793.6
    assert round(self_attention.intensity) == 37_944
    text = (meta(1, 397, *head),) * 2
    cross = cost("attention", own[0], *text, 0.1, False, None, None)
    assert cross.flops == 4 * TOKENS * 397 * DIM
    one = cost("linear", meta(1, TOKENS, DIM), weight, None)
    up = cost("linear", meta(1, TOKENS, DIM), meta(4 * DIM, DIM), None)
    down = cost("linear", meta(1, TOKENS, 4 * DIM), meta(DIM, 4 * DIM), None)
    key_value = cost("linear", meta(1, 397, DIM), meta(2 * DIM, DIM), None)
    parts = (qkv, self_attention, one, one, one, cross, up, down, key_value)
    assert round(48 * sum(part.flops for part in parts) / 1e12) == 10_682
    rows = (meta(1, DIM), meta(1, DIM))
    modulate = cost("adaln_modulate", meta(1, TOKENS, DIM), meta(DIM), meta(DIM), 1e-5, *rows)
    assert modulate == Cost(0, 2 * STREAM + 4 * DIM * 2)
    gated = cost("gated_residual", meta(1, TOKENS, DIM), meta(1, TOKENS, DIM), rows[0])
    assert gated == Cost(0, 3 * STREAM + DIM * 2)
    assert cost("gelu_tanh", meta(1, 8192, 4 * DIM)) == Cost(0, 2 * 8192 * 4 * DIM * 2)
    tables = (meta(TOKENS, 128, dtype=torch.float32),) * 2
    packed, axes = meta(1, TOKENS, HEADS, 384), (64, 32, 32)
    norm_rope = cost("qk_norm_rope", packed, meta(128), meta(128), 1e-6, *tables, axes)
    assert norm_rope == Cost(0, 4 * STREAM + 2 * 128 * 2 + 2 * TOKENS * 128 * 4)
    rope = cost("rope_3d", meta(1, TOKENS, *head), *tables, axes)
    assert rope == Cost(0, 2 * STREAM + 2 * TOKENS * 128 * 4)
    norm = cost("rms_norm", meta(1, TOKENS, *head), meta(128), 1e-6)
    assert norm == Cost(0, 2 * STREAM + 128 * 2)


def test_what_is_not_seen_is_not_counted() -> None:
    """Causal attention is a triangle; keys beyond a sample's length are not read."""
    x = meta(2, 5, 1, 512)
    causal = cost("attention", x, x, x, 0.1, True, None, None)
    assert causal.flops == 2 * 4 * 512 * (1 + 2 + 3 + 4 + 5)
    q, k = meta(2, 7, 4, 16), meta(2, 9, 2, 16)
    ragged = cost("attention", q, k, k, 0.1, False, (9, 1), None)
    assert ragged == Cost(4 * 7 * 10 * 4 * 16, 2 * (2 * 7 * 4 * 16) * 2 + 2 * 10 * 2 * 16 * 2)
    slopes = meta(1, dtype=torch.float32)
    biased = cost("attention", x, x, x, 0.1, True, None, slopes)
    assert biased.num_bytes - causal.num_bytes == 4


def test_the_autoencoder() -> None:
    x, bias = meta(1, 256, 3, 6, 5), meta(128)
    same = cost("causal_conv3d", x, meta(128, 256, 3, 3, 3), bias, (1, 1, 1), 2)
    assert same.flops == 2 * 27 * 256 * 128 * 90
    assert same.num_bytes == 2 * (256 * 90 + 27 * 256 * 128 + 128 + 128 * 90)
    halved = cost("causal_conv3d", x, meta(128, 256, 3, 3, 3), bias, (2, 2, 2), 2)
    assert halved.flops == 2 * 27 * 256 * 128 * (2 * 3 * 3)
    frames = meta(3, 16, 8, 6)
    down = cost("conv2d", frames, meta(16, 16, 3, 3), meta(16), 2, (0, 1, 0, 1))
    assert down.flops == 2 * 9 * 16 * 16 * (3 * 4 * 3)
    norm = cost("group_norm_silu", x, meta(256), meta(256), 32, 1e-5, True, True, 2)
    assert norm == Cost(0, 2 * (256 * 90 + 2 * 256 + 256 * 150))
    shuffle = cost("pixel_shuffle_add", meta(1, 256, 3, 4, 3), meta(1, 128, 3, 4, 3), 2)
    assert shuffle == Cost(0, 2 * (256 * 36 + 128 * 36 + 32 * 5 * 8 * 6))
    unshuffle = cost("pixel_unshuffle_add", meta(1, 16, 5, 6, 4), meta(1, 32, 5, 6, 4), 2)
    assert unshuffle == Cost(0, 2 * (16 * 120 + 32 * 120 + 128 * 3 * 3 * 2))


def _outputs(result: Any) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else tuple(result)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_every_case_against_torchs_counter(case: Case) -> None:
    """Not where torch counts a triangle or padding in full, or a product of vectors not at all."""
    arguments = case.arguments(torch.float32, torch.device("cpu"))
    found = case.op.cost(*arguments)
    eager = eager_of(load_registry(), case.op.name).fn
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        results = _outputs(eager(*arguments))
    is_attention = case.op.name == "attention"
    if is_attention and arguments[0].shape[1] == 1:
        assert counter.get_total_flops() < found.flops
    elif is_attention and (arguments[4] or arguments[5]):
        assert 0 < found.flops <= counter.get_total_flops()
    else:
        assert found.flops == counter.get_total_flops()
    written = sum(result.numel() for result in results) * 4
    assert found.num_bytes >= written * (2 / 3 if case.op.name == "qk_norm_rope" else 1)
    device_free = tuple(x.to("meta") if isinstance(x, Tensor) else x for x in arguments)
    assert case.op.cost(*device_free) == found


def test_arithmetic() -> None:
    assert Cost(3, 4) + Cost(1, 2) == Cost(4, 6)
    assert Cost(3, 4) * 5 == Cost(15, 20)
    assert Cost(8, 4).intensity == 2
    assert Cost().intensity == 0
    assert Cost(100, 10).roof_seconds(10.0, 10.0) == 10
    assert Cost(10, 100).roof_seconds(10.0, 10.0) == 10
