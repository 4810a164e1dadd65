"""What the contracts take at the sizes of the 30B model, and every limit they state."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from stepvideo_virtual_npu import ContractViolation
from stepvideo_virtual_npu.contracts import CONTRACTS
from stepvideo_virtual_npu.kernels import KERNELS
from stepvideo_virtual_npu.operators import vendor_operators

TOKENS, HEADS, WIDTH = 75_888, 48, 128
BF16, F16, F32 = torch.bfloat16, torch.float16, torch.float32


def meta(*shape: int, dtype: torch.dtype = BF16) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def refused(op: str, match: str, *args: Any, **kwargs: Any) -> None:
    with pytest.raises(ContractViolation, match=match) as caught:
        getattr(torch.ops.npu, op)(*args, **kwargs)
    assert str(caught.value).startswith(f"npu::{op} on 910B2: ")
    assert str(caught.value).endswith(".md)")


def test_every_contract_has_a_kernel_and_an_operator() -> None:
    names = {op.name().removeprefix("npu::") for op in vendor_operators()}
    assert set(CONTRACTS) == set(KERNELS)
    assert set(CONTRACTS) <= names


def test_attention_of_the_30b_model() -> None:
    q = meta(1, TOKENS, HEADS, WIDTH)
    out, maximum, *_ = torch.ops.npu.npu_fusion_attention(q, q, q, HEADS, "BSND", scale=0.088)
    assert (out.shape, out.dtype) == (q.shape, BF16)
    assert (list(maximum.shape), maximum.dtype) == ([1, HEADS, TOKENS, 8], F32)
    text = meta(1, 397, HEADS, WIDTH)
    torch.ops.npu.npu_fusion_attention_v3(q, text, text, HEADS, "BSND", scale=0.088)
    torch.ops.npu.npu_fused_infer_attention_score(
        q, text, text, num_heads=HEADS, num_key_value_heads=HEADS, input_layout="BSND", scale=0.088
    )
    ragged, keys = meta(2 * TOKENS, HEADS, WIDTH), meta(500, HEADS, WIDTH)
    torch.ops.npu.npu_fusion_attention(
        ragged,
        keys,
        keys,
        HEADS,
        "TND",
        scale=0.088,
        actual_seq_qlen=[TOKENS, 2 * TOKENS],
        actual_seq_kvlen=[397, 500],
    )


def test_the_vae_head_of_the_30b_model() -> None:
    """One head of width 512, causal: the compressed triangle, not a mask of 42,160 squared."""
    q = meta(1, 42_160, 1, 512)
    triangle = meta(2048, 2048, dtype=torch.bool)
    out = torch.ops.npu.npu_fusion_attention(
        q, q, q, 1, "BSND", atten_mask=triangle, sparse_mode=2, scale=512**-0.5
    )[0]
    assert out.shape == q.shape


def test_the_rest_of_the_30b_model() -> None:
    x = meta(1, TOKENS, HEADS, WIDTH)
    assert torch.ops.npu.npu_rms_norm(x, meta(WIDTH), 1e-6)[0].shape == x.shape
    assert torch.ops.npu.npu_rms_norm(x, meta(WIDTH, dtype=F32), 1e-6)[0].dtype == BF16
    part, table = x[..., :64], meta(1, TOKENS, 1, 64)
    assert torch.ops.npu.npu_rotary_mul(part, table, table).shape == part.shape
    ffn = meta(1, TOKENS, 24_576)
    assert torch.ops.npu.npu_gelu(ffn, approximate="tanh").shape == ffn.shape
    frames = meta(20, 256, 544, 992)
    out, mean, _ = torch.ops.npu.npu_group_norm_silu(frames, meta(256), meta(256), 32, 1e-5)
    assert (out.shape, list(mean.shape)) == (frames.shape, [20, 32])


_Q = (2, 32, 4, 64)


@pytest.mark.parametrize(
    ("match", "changed"),
    [
        ("input_layout is 'BSDN', not one of BSH", {"input_layout": "BSDN"}),
        ("head_num is 32, but query .* has 4 heads", {"head_num": 32}),
        ("has 32 heads in layout BNSD", {"input_layout": "BNSD"}),
        ("is not of layout BSH", {"input_layout": "BSH"}),
        ("query is float64, not one of", {"query": meta(*_Q, dtype=torch.float64)}),
        ("different dtypes: query bfloat16, key float16", {"key": meta(*_Q, dtype=F16)}),
        ("batches 2, 3 and 3", {"key": meta(3, 32, 4, 64), "value": meta(3, 32, 4, 64)}),
        ("lengths 32 and 31", {"value": meta(2, 31, 4, 64)}),
        ("4 query heads do not go with 3", {"key": meta(2, 9, 3, 64), "value": meta(2, 9, 3, 64)}),
        ("head widths are 64, 64 and 80", {"value": meta(2, 32, 4, 80)}),
        ("padding_mask is given, but is reserved", {"padding_mask": meta(2)}),
        ("inner_precise is 1, not one of 0, 2", {"inner_precise": 1}),
        ("keep_prob is 0.0", {"keep_prob": 0.0}),
        ("sparse_mode is 99", {"sparse_mode": 99}),
        ("sparse_mode 2 without atten_mask is ignored", {"sparse_mode": 2}),
        ("atten_mask is bfloat16, not bool or uint8", {"atten_mask": meta(32, 32)}),
        (r"atten_mask has shape \[2, 32\]", {"atten_mask": meta(2, 32, dtype=torch.bool)}),
        (
            r"atten_mask has shape \[2, 1, 1, 32\]",
            {"atten_mask": meta(2, 1, 1, 32, dtype=torch.bool)},
        ),
        (
            "wants the 2048 x 2048 triangle",
            {"atten_mask": meta(32, 32, dtype=torch.bool), "sparse_mode": 3},
        ),
        (
            "actual_seq_qlen goes with layout TND only",
            {"actual_seq_qlen": [32, 64], "actual_seq_kvlen": [32, 64]},
        ),
        (r"pse has shape \[32, 32\]", {"pse": meta(32, 32)}),
        ("sink must be float32", {"sink": meta(4)}),
        ("softmax_layout TND goes with", {"softmax_layout": "TND"}),
    ],
)
def test_limits_of_fusion_attention(match: str, changed: dict[str, Any]) -> None:
    call = {"query": meta(*_Q), "key": meta(*_Q), "value": meta(*_Q), "head_num": 4}
    call |= {"input_layout": "BSND", "scale": 0.125}
    torch.ops.npu.npu_fusion_attention(**call)
    refused("npu_fusion_attention", match, **call | changed)


@pytest.mark.parametrize(
    ("match", "lengths"),
    [
        ("starts with 0; it lists the ends", [0, 30, 64]),
        ("ends with 60, but there are 64 tokens", [30, 60]),
        ("is not cumulative", [40, 30, 64]),
        ("is not cumulative", [32, 32, 20, 64]),
        ("actual_seq_qlen is missing", None),
        ("there are 1 query and 2 key sequences", [64]),
    ],
)
def test_limits_of_ragged_batches(match: str, lengths: list[int] | None) -> None:
    q = meta(64, 4, 128)
    with pytest.raises(ContractViolation, match=match):
        torch.ops.npu.npu_fusion_attention(
            q, q, q, 4, "TND", actual_seq_qlen=lengths, actual_seq_kvlen=[32, 64]
        )
    with pytest.raises(ContractViolation, match=match.replace("qlen", "lengths")):
        torch.ops.npu.npu_fused_infer_attention_score(
            q,
            q,
            q,
            num_heads=4,
            input_layout="TND",
            actual_seq_lengths=lengths,
            actual_seq_lengths_kv=[32, 64],
        )


@pytest.mark.parametrize(
    ("match", "changed"),
    [
        ("query is float32, not one of float16, bfloat16", {"query": meta(*_Q, dtype=F32)}),
        ("input_layout is 'SBH'", {"input_layout": "SBH"}),
        ("num_heads is 1 and", {"num_heads": 1}),
        ("query is not contiguous", {"query": meta(2, 32, 4, 128)[..., :64]}),
        ("takes 24 bytes, which is no multiple of 16", {k: meta(2, 32, 4, 12) for k in "qkv"}),
        ("136 takes 272 bytes; beyond 128", {k: meta(2, 32, 4, 136) for k in "qkv"}),
        ("differ in shape", {"value": meta(2, 32, 4, 32)}),
        ("inner_precise is 4", {"inner_precise": 4}),
        ("actual_seq_lengths_kv has 3 entries", {"actual_seq_lengths_kv": [1, 2, 3]}),
        (r"actual_seq_lengths_kv \[32, 33\] exceeds", {"actual_seq_lengths_kv": [32, 33]}),
        ("sparse_mode is 5", {"sparse_mode": 5}),
    ],
)
def test_limits_of_fused_inference_attention(match: str, changed: dict[str, Any]) -> None:
    call = {"query": meta(*_Q), "key": meta(*_Q), "value": meta(*_Q), "num_heads": 4}
    call |= {"input_layout": "BSND", "scale": 0.125}
    torch.ops.npu.npu_fused_infer_attention_score(**call)
    short = {"q": "query", "k": "key", "v": "value"}
    changed = {short.get(name, name): value for name, value in changed.items()}
    refused("npu_fused_infer_attention_score", match, **call | changed)


def test_prompt_attention_cuts_by_default() -> None:
    q = meta(*_Q)
    mask = meta(2, 1, 32, 32, dtype=torch.bool)
    call = {"num_heads": 4, "input_layout": "BSND", "scale_value": 0.1, "atten_mask": mask}
    refused("npu_prompt_flash_attention", "next_tokens is 0, its default", q, q, q, **call)
    torch.ops.npu.npu_prompt_flash_attention(q, q, q, **call, next_tokens=2147483647)


_X, _TABLE = meta(2, 30, 4, 64), meta(1, 30, 1, 64)


@pytest.mark.parametrize(
    ("op", "match", "args"),
    [
        ("npu_rotary_mul", "rotary_mode is 'neox'", (_X, _TABLE, _TABLE, "neox")),
        ("npu_rotary_mul", "each angle written twice", (_X, _TABLE[..., :32], _TABLE[..., :32])),
        ("npu_rotary_mul", "does not broadcast", (_X, meta(1, 29, 1, 64), meta(1, 29, 1, 64))),
        ("npu_rotary_mul", "does not broadcast", (_X, meta(30, 64), meta(30, 64))),
        ("npu_rotary_mul", "differ in shape", (_X, _TABLE, meta(2, 30, 1, 64))),
        ("npu_rotary_mul", "has 2 dimensions, not 3 or 4", (meta(3, 64), _TABLE, _TABLE)),
        ("npu_rotary_mul", "is odd", (meta(1, 2, 1, 3), meta(1, 2, 1, 3), meta(1, 2, 1, 3))),
        ("npu_rotary_mul", "is 896", tuple(meta(1, 2, 1, 896) for _ in "xyz")),
        (
            "npu_rotary_mul",
            "takes tables of one varying axis",
            (_X, meta(2, 30, 1, 64), meta(2, 30, 1, 64), "interleave"),
        ),
        (
            "npu_rotary_mul",
            "is 1000, not below 1000",
            (meta(1, 30, 1000, 64), _TABLE, _TABLE),
        ),
        ("npu_apply_rotary_pos_emb", "batches are not broadcast", (_X, _X, _TABLE, _TABLE)),
        (
            "npu_apply_rotary_pos_emb",
            "layout is 'BNSD'",
            (_X, _X, _TABLE, _TABLE, "BNSD"),
        ),
        ("npu_rms_norm", "is not the end of the input's shape", (_X, meta(7))),
        ("npu_rms_norm", "takes no gamma in bfloat16", (_X.float(), meta(64))),
        ("npu_add_rms_norm", "differ in shape", (_X, meta(1, 64), meta(64))),
        ("npu_layer_norm_eval", "for every sample", (_X, [64], meta(2, 1, 1, 64), None)),
        ("npu_add_layer_norm", r"not \[64\]", (_X, _X, meta(4), meta(64))),
        ("npu_deep_norm", "differ in shape", (_X, meta(1, 64), meta(64), meta(64))),
        ("npu_group_norm_silu", "7 groups do not divide 30 channels", (_X, None, None, 7)),
        ("npu_group_norm_silu", r"weight has shape \[64\]", (_X, meta(64), None, 5)),
        ("npu_group_norm_silu", "less precise", (_X.float(), meta(30), meta(30), 5)),
        ("npu_group_norm_swish", "different dtypes", (_X, 5, meta(30, dtype=F32), meta(30))),
        ("npu_gelu", "approximate is 'quick'", (_X, "quick")),
        ("npu_gelu", "input is int32", (_X.int(), "none")),
        ("npu_geglu", "is odd and has no two halves", (meta(2, 7), -1)),
        ("npu_swiglu", "not contiguous", (meta(2, 8).t(), 0)),
        ("npu_gelu_mul", "is 2048, more than 1024", (meta(2, 2048), "none")),
        (
            "npu_convolution",
            "8 input channels in 1 groups",
            (meta(1, 8, 4, 4), meta(4, 7, 3, 3), None, [1, 1], [0, 0], [1, 1], 1),
        ),
        (
            "npu_convolution",
            "must be 2 numbers of at least 0",
            (meta(1, 8, 4, 4), meta(4, 8, 3, 3), None, [1, 1], [-1, 0], [1, 1], 1),
        ),
        (
            "npu_attention_update",
            "no multiple of 8",
            ([meta(6, dtype=F32)], [meta(6, 12)], 0),
        ),
    ],
)
def test_limits_of_the_others(op: str, match: str, args: tuple[Any, ...]) -> None:
    if op in ("npu_gelu", "npu_gelu_mul"):
        refused(op, match, args[0], approximate=args[1])
    else:
        refused(op, match, *args)


def test_contracts_read_elements_where_there_are_any() -> None:
    q = torch.randn(1, 8, 2, 64, dtype=F16)
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[3] = True
    call = ("npu_fusion_attention", "masks every key of some query", q, q, q, 2, "BSND")
    refused(*call, atten_mask=mask)
    torch.ops.npu.npu_fusion_attention(q, q, q, 2, "BSND", atten_mask=mask, inner_precise=2)
    keep = torch.ones(2048, 2048, dtype=torch.bool).tril()
    refused(
        "npu_fusion_attention",
        "must be True strictly above the diagonal",
        *(q, q, q, 2, "BSND"),
        atten_mask=keep,
        sparse_mode=2,
    )
    angles = torch.full((1, 8, 1, 64), 1.5, dtype=F16)
    refused("npu_rotary_mul", "values beyond 1", q, angles, angles)
    lengths = torch.tensor([0, 8])
    refused(
        "npu_fusion_attention_v3",
        "starts with 0",
        *(q[0], q[0], q[0], 2, "TND"),
        actual_seq_qlen=lengths,
        actual_seq_kvlen=lengths,
    )


def test_complaints_are_collected() -> None:
    q = meta(*_Q)
    with pytest.raises(ContractViolation) as caught:
        torch.ops.npu.npu_fusion_attention(q, q, q, 3, "BSND", keep_prob=2.0, sparse_mode=1)
    assert re.search("head_num is 3.*; keep_prob is 2.0.*; sparse_mode 1", str(caught.value))


def test_the_schema_is_the_vendors() -> None:
    q = meta(*_Q)
    for wrong in ({"num_heads": 4}, {"pre_tokens": 5}, {"softmax_scale": 1.0}):
        with pytest.raises(RuntimeError, match=next(iter(wrong))):
            torch.ops.npu.npu_fusion_attention(q, q, q, 4, "BSND", **wrong)
    with pytest.raises(RuntimeError, match="eps"):
        torch.ops.npu.npu_rms_norm(q, meta(64), eps=1e-6)
