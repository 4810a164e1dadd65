"""The CPU kernels: against the vendor's shape functions, and against mathematics written apart."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.library import opcheck

from stepvideo_virtual_npu.contracts import CONTRACTS

npu = torch.ops.npu
BF16, F16, F32 = torch.bfloat16, torch.float16, torch.float32


def normal(*shape: int, dtype: torch.dtype = BF16, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


_Q, _T, _ROWS = normal(2, 7, 4, 64), normal(14, 4, 128), normal(2, 5, 128)
_G, _VOLUME, _C = normal(128), normal(2, 32, 3, 4, 4), normal(32)
_ENDS = [7, 14]

_CALLS: dict[str, list[tuple[tuple[Any, ...], dict[str, Any]]]] = {
    "npu_fusion_attention": [
        ((_Q, _Q, _Q, 4, "BSND"), {}),
        ((_Q, _Q[:, :5], _Q[:, :5, :, :32], 4, "BSND"), {}),
        (((_Q.flatten(2),) * 3) + (4, "BSH"), {}),
        (((_Q.flatten(2),) * 3) + (4, "SBH"), {}),
        ((_T, _T, _T, 4, "TND"), {"actual_seq_qlen": _ENDS, "actual_seq_kvlen": _ENDS}),
    ],
    "npu_fusion_attention_v2": [((_Q, _Q, _Q, 7, "BNSD"), {})],
    "npu_fusion_attention_v3": [((_Q, _Q, _Q, 7, "BNSD"), {})],
    "npu_fused_infer_attention_score": [
        ((_Q, _Q, _Q), {"num_heads": 4, "input_layout": "BSND"}),
        ((_Q, _Q, _Q), {"num_heads": 4, "input_layout": "BSND", "softmax_lse_flag": True}),
        ((_Q, _Q, _Q), {"num_heads": 7, "input_layout": "BNSD_BSND"}),
        (
            (_T, _T, _T),
            {
                "num_heads": 4,
                "num_key_value_heads": 4,
                "input_layout": "TND",
                "actual_seq_lengths": _ENDS,
                "actual_seq_lengths_kv": _ENDS,
                "softmax_lse_flag": True,
            },
        ),
    ],
    "npu_prompt_flash_attention": [
        ((_Q, _Q, _Q), {"num_heads": 4, "input_layout": "BSND"}),
        ((_Q, _Q, _Q), {"num_heads": 7, "input_layout": "BNSD_BSND"}),
    ],
    "npu_attention_update": [
        (([torch.zeros(14)] * 2, [normal(14, 64, dtype=F32)] * 2, 1), {}),
    ],
    "npu_ring_attention_update": [
        (
            (normal(7, 2, 256), torch.zeros(2, 4, 7, 8), torch.ones(2, 4, 7, 8)) * 2,
            {},
        )
    ],
    "npu_rotary_mul": [
        ((_Q, torch.ones(1, 7, 1, 64).bfloat16(), torch.zeros(1, 7, 1, 64).bfloat16(), mode), {})
        for mode in ("half", "interleave")
    ],
    "npu_rms_norm": [((_ROWS, _G), {}), ((_ROWS, _G.float()), {"epsilon": 1e-5})],
    "npu_gemma_rms_norm": [((_ROWS, _G), {})],
    "npu_add_rms_norm": [((_ROWS, _ROWS, _G), {})],
    "npu_layer_norm_eval": [((_ROWS, [128], _G, _G), {}), ((_ROWS, [5, 128]), {})],
    "npu_add_layer_norm": [((_ROWS, _ROWS, _G, _G), {"additional_output": True})],
    "npu_deep_norm": [((_ROWS, _ROWS, _G, _G), {})],
    "npu_group_norm_silu": [
        ((_VOLUME, _C, _C, 8), {}),
        ((_VOLUME, _C.float(), _C.float(), 8), {}),
        ((_VOLUME, None, None, 8), {}),
    ],
    "npu_group_norm_swish": [((_VOLUME, 8, _C, _C), {})],
    "npu_gelu": [((_ROWS,), {"approximate": "tanh"})],
    "npu_fast_gelu": [((_ROWS,), {})],
    "npu_gelu_mul": [((_ROWS,), {})],
    "npu_geglu": [((_ROWS,), {}), ((_ROWS,), {"activate_left": True, "approximate": 0})],
    "npu_swiglu": [((_ROWS,), {}), ((_VOLUME,), {"dim": 1})],
    "npu_silu": [((_ROWS,), {})],
    "npu_convolution": [
        ((_VOLUME, normal(8, 32, 3, 3, 3), None, [1, 1, 1], [1, 1, 1], [1, 1, 1], 1), {})
    ],
}

_VENDOR_DEFECTS = {
    "npu_fusion_attention_v2": "its shape function reads layout TND and BSND as BNSD",
    "npu_apply_rotary_pos_emb": "it rotates in place, which its schema does not declare",
    "npu_conv3d": "it has no shape function",
}


@pytest.mark.parametrize(
    ("op", "args", "kwargs"),
    [(op, args, kwargs) for op, calls in _CALLS.items() for args, kwargs in calls],
)
def test_results_are_as_the_vendor_shapes_them(
    op: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """torch's own check of kernel against shape function: shapes, dtypes, strides, aliases."""
    checks = ("test_schema", "test_faketensor")
    opcheck(getattr(npu, op).default, args, kwargs, test_utils=checks)


def test_every_operator_is_checked_or_known_not_to_be() -> None:
    assert set(_CALLS) | set(_VENDOR_DEFECTS) == set(CONTRACTS)


def test_the_vendors_defects_are_still_there() -> None:
    """When one of these is mended, its operator belongs into the list above."""
    with pytest.raises(Exception, match=r"Shapes|shape|stride"):
        opcheck(
            npu.npu_fusion_attention_v2.default,
            (_Q, _Q, _Q, 4, "BSND"),
            test_utils=("test_faketensor",),
        )
    table = torch.ones(2, 7, 1, 64).bfloat16()
    with pytest.raises(Exception, match="query"):
        opcheck(
            npu.npu_apply_rotary_pos_emb.default,
            (_Q.clone(), _Q.clone(), table, table * 0.5),
            test_utils=("test_schema",),
        )
    with pytest.raises(NotImplementedError, match="npu_conv3d"):
        npu.npu_conv3d(
            *(_VOLUME.to("meta"), normal(8, 32, 1, 1, 1).to("meta"), None),
            *([1, 1, 1], [0, 0, 0], [1, 1, 1], 1),
        )


def truth(q: Tensor, k: Tensor, v: Tensor, scale: float, keep: Tensor | None) -> Tensor:
    """Attention in float64 on [B, N, S, D], by torch."""
    return F.scaled_dot_product_attention(
        q.double(), k.double(), v.double(), attn_mask=keep, scale=scale, enable_gqa=True
    )


def close(result: Tensor, expected: Tensor) -> None:
    assert result.shape == expected.shape
    tolerance = {F32: 2e-6, F16: 2e-3, BF16: 1.6e-2}[result.dtype]
    scale = expected.abs().max()
    assert (result.double() - expected.double()).abs().max() <= tolerance * scale


@settings(max_examples=40, deadline=None)
@given(
    layout=st.sampled_from(["BSH", "SBH", "BSND", "BNSD"]),
    batch=st.integers(1, 3),
    queries=st.integers(1, 20),
    keys=st.integers(1, 30),
    shared=st.sampled_from([1, 2, 4]),
    dtype=st.sampled_from([F32, F16, BF16]),
    masked=st.booleans(),
    seed=st.integers(0, 99),
)
def test_fusion_attention_in_every_layout(
    layout: str,
    batch: int,
    queries: int,
    keys: int,
    shared: int,
    dtype: torch.dtype,
    masked: bool,
    seed: int,
) -> None:
    heads, width = 4, 16
    q = normal(batch, heads, queries, width, dtype=dtype, seed=seed)
    k, v = (normal(batch, shared, keys, width, dtype=dtype, seed=seed + i) for i in (1, 2))
    keep = None
    if masked:
        keep = torch.rand(batch, 1, queries, keys, generator=torch.Generator().manual_seed(3)) < 0.7
        keep[..., 0] = True
    expected = truth(q, k, v, 0.3, keep)
    pack = {
        "BNSD": lambda x: x,
        "BSND": lambda x: x.transpose(1, 2),
        "BSH": lambda x: x.transpose(1, 2).flatten(2),
        "SBH": lambda x: x.permute(2, 0, 1, 3).flatten(2),
    }[layout]
    mask = None if keep is None else ~keep
    out, maximum, total, *_ = npu.npu_fusion_attention(
        pack(q), pack(k), pack(v), heads, layout, atten_mask=mask, scale=0.3
    )
    close(out, pack(expected))
    grown = k.repeat_interleave(heads // shared, dim=1)
    scores = 0.3 * q.double() @ grown.double().mT
    if keep is not None:
        scores = scores.masked_fill(~keep, -torch.inf)
    lse = (maximum + total.log())[..., 0]
    torch.testing.assert_close(lse.double(), scores.logsumexp(-1), atol=1e-4, rtol=1e-4)


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4),
    mode=st.sampled_from([0, 2, 3]),
)
def test_ragged_batches_are_their_samples_in_a_row(sizes: list[tuple[int, int]], mode: int) -> None:
    q = normal(sum(a for a, _ in sizes), 2, 128, dtype=F16)
    k, v = (normal(sum(b for _, b in sizes), 2, 128, dtype=F16, seed=i) for i in (1, 2))
    q_ends = torch.tensor([a for a, _ in sizes]).cumsum(0).tolist()
    k_ends = torch.tensor([b for _, b in sizes]).cumsum(0).tolist()
    causal = {"atten_mask": torch.ones(2048, 2048, dtype=torch.bool).triu(1), "inner_precise": 2}
    options = {"scale": 0.1, "sparse_mode": mode} | (causal if mode else {})
    ragged = dict(options) | {"actual_seq_qlen": q_ends, "actual_seq_kvlen": k_ends}
    out = npu.npu_fusion_attention(q, k, v, 2, "TND", **ragged)[0]
    lengths = {name: torch.tensor(ragged[name]) for name in ("actual_seq_qlen", "actual_seq_kvlen")}
    third = npu.npu_fusion_attention_v3(q, k, v, 2, "TND", **ragged | lengths)[0]
    assert torch.equal(out, third)
    starts = zip([0, *q_ends], q_ends, [0, *k_ends], k_ends, strict=False)
    samples = [
        npu.npu_fusion_attention(q[None, a:b], k[None, c:d], v[None, c:d], 2, "BSND", **options)[0][
            0
        ]
        for a, b, c, d in starts
    ]
    assert torch.equal(out, torch.cat(samples))


@pytest.mark.parametrize(("queries", "keys"), [(9, 9), (5, 11)])
def test_sparse_modes(queries: int, keys: int) -> None:
    q, k, v = (normal(1, 2, n, 32, dtype=F32, seed=n) for n in (queries, keys, keys))
    row, key = torch.arange(queries)[:, None], torch.arange(keys)
    triangle = torch.ones(2048, 2048, dtype=torch.bool).triu(1)
    shift = keys - queries
    for mode, keep, window in (
        (2, key <= row, {}),
        (3, key <= row + shift, {}),
        (4, (key >= row + shift - 3) & (key <= row + shift + 1), (3, 1)),
    ):
        tokens = {"pre_tockens": window[0], "next_tockens": window[1]} if window else {}
        out = npu.npu_fusion_attention(
            q, k, v, 2, "BNSD", atten_mask=triangle, sparse_mode=mode, scale=0.2, **tokens
        )[0]
        close(out, truth(q, k, v, 0.2, keep))
    nothing = torch.zeros(queries, keys, dtype=torch.bool)
    out = npu.npu_fusion_attention(
        q, k, v, 2, "BNSD", atten_mask=nothing, scale=0.2, pre_tockens=2, next_tockens=keys
    )[0]
    close(out, truth(q, k, v, 0.2, key >= row - 2))


def test_fully_masked_rows_are_zero_where_they_are_defined() -> None:
    q = normal(1, 4, 2, 32, dtype=F32)
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[2] = True
    out = npu.npu_fusion_attention(q, q, q, 2, "BSND", atten_mask=mask, inner_precise=2)[0]
    assert out[0, 2].eq(0).all()
    assert out.isfinite().all()


def test_pse_and_sink() -> None:
    q = normal(1, 2, 6, 32, dtype=F32)
    bias = normal(1, 2, 6, 6, dtype=F32, seed=4)
    out = npu.npu_fusion_attention(q, q, q, 2, "BNSD", pse=bias, scale=0.2)[0]
    close(out, truth(q, q, q, 0.2, 0.2 * bias.double()))
    after = npu.npu_fusion_attention_v2(q, q, q, 2, "BNSD", pse=bias, scale=0.2, pse_type=0)[0]
    close(after, truth(q, q, q, 0.2, bias.double()))
    sink = torch.tensor([0.5, -1.0])
    out = npu.npu_fusion_attention(q, q, q, 2, "BNSD", scale=0.2, sink=sink)[0]
    scores = torch.cat([0.2 * q @ q.mT, sink[None, :, None, None].expand(1, 2, 6, 1)], dim=-1)
    close(out, (scores.double().softmax(-1)[..., :-1] @ q.double()))


def test_inference_attention() -> None:
    q, k = normal(3, 5, 4, 32, dtype=F16), normal(3, 9, 2, 32, dtype=F16, seed=1)
    lengths = [9, 1, 4]
    keep = (torch.arange(9) < torch.tensor(lengths)[:, None])[:, None, None]
    expected = truth(q.transpose(1, 2), k.transpose(1, 2), k.transpose(1, 2), 0.2, keep)
    call = {"num_heads": 4, "num_key_value_heads": 2, "input_layout": "BSND"}
    out, lse = npu.npu_fused_infer_attention_score(
        q, k, k, **call, scale=0.2, actual_seq_lengths_kv=lengths, softmax_lse_flag=True
    )
    close(out, expected.transpose(1, 2))
    assert list(lse.shape) == [3, 4, 5, 1]
    mask = (~keep).expand(3, 1, 5, 9).contiguous()
    same = npu.npu_prompt_flash_attention(
        q, k, k, **call, scale_value=0.2, atten_mask=mask, next_tokens=2147483647
    )
    assert torch.equal(same, out)


def test_merging_parts_gives_the_whole() -> None:
    """Split the keys, merge by log-sum-exp: the way of sequence parallelism."""
    q, k, v = (normal(1, 10, 2, 32, dtype=F16, seed=i) for i in range(3))
    call = {"num_heads": 2, "input_layout": "BSND", "scale": 0.2, "softmax_lse_flag": True}
    whole, lse = npu.npu_fused_infer_attention_score(q, k, v, **call)
    parts = [
        npu.npu_fused_infer_attention_score(
            q, k[:, a:b].contiguous(), v[:, a:b].contiguous(), **call
        )
        for a, b in ((0, 3), (3, 10))
    ]
    flat_lse = [part[1][0, :, :, 0].t().reshape(-1).contiguous() for part in parts]
    flat_out = [part[0].reshape(-1, 32) for part in parts]
    merged, merged_lse = npu.npu_attention_update(flat_lse, flat_out, 1)
    close(merged.view_as(whole), whole.double())
    torch.testing.assert_close(merged_lse.view(10, 2), lse[0, :, :, 0].t())


def test_rotary_modes() -> None:
    """Interleave turns neighbouring pairs, like complex numbers; half turns pairs D/2 apart."""
    x = normal(2, 6, 3, 32, dtype=F32)
    angles = normal(6, 16, dtype=F32, seed=1).double()
    turn = torch.polar(torch.ones_like(angles), angles)[:, None]
    pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)))
    interleaved = torch.view_as_real(pairs * turn).flatten(-2)
    halves = torch.view_as_complex(torch.stack(x.double().chunk(2, -1), -1).contiguous())
    half = torch.cat([(halves * turn).real, (halves * turn).imag], dim=-1)
    for mode, expected, table in (
        ("interleave", interleaved, angles.repeat_interleave(2, -1)),
        ("half", half, torch.cat([angles, angles], -1)),
    ):
        cos, sin = (f(table).float()[None, :, None] for f in (torch.cos, torch.sin))
        close(npu.npu_rotary_mul(x, cos, sin, mode), expected)
    cos, sin = (
        f(torch.cat([angles] * 2, -1)).float()[None, :, None] for f in (torch.cos, torch.sin)
    )
    padded = F.pad(x, (0, 32)).contiguous()
    tables = [F.pad(t.expand(2, -1, -1, -1), (0, 32)).contiguous() for t in (cos, sin)]
    q, k = padded.clone(), padded.clone()
    npu.npu_apply_rotary_pos_emb(q, k, *tables)
    assert torch.equal(q, k) and not torch.equal(q, padded), "it works in place"
    close(q, npu.npu_rotary_mul(padded, *tables).double())


@pytest.mark.parametrize("dtype", [F32, F16, BF16])
def test_norms_and_activations(dtype: torch.dtype) -> None:
    x, gain = normal(3, 5, 64, dtype=dtype), normal(64, dtype=dtype, seed=1)
    wide, g = x.double(), gain.double()
    rms = F.rms_norm(wide, (64,), eps=1e-6)
    close(npu.npu_rms_norm(x, gain)[0], rms * g)
    close(npu.npu_gemma_rms_norm(x, gain)[0], rms * (1 + g))
    close(npu.npu_add_rms_norm(x, x, gain)[0], F.rms_norm(2 * wide, (64,), g, 1e-6))
    layer = F.layer_norm(wide, (64,), g, g, 1e-5)
    close(npu.npu_layer_norm_eval(x, [64], gain, gain), layer)
    close(npu.npu_add_layer_norm(x, x, gain, gain)[0], F.layer_norm(2 * wide, (64,), g, g, 1e-5))
    deep = F.layer_norm(1.3 * wide, (64,), g, g, 1e-6)
    close(npu.npu_deep_norm(x, x, gain, gain)[2], deep)
    image = normal(2, 64, 3, 3, dtype=dtype)
    group = F.group_norm(image.double(), 8, g, g, 1e-5)
    close(npu.npu_group_norm_silu(image, gain, gain, 8)[0], F.silu(group))
    swish = group * torch.sigmoid(2.0 * group)
    close(npu.npu_group_norm_swish(image, 8, gain, gain, swish_scale=2.0)[0], swish)
    a, b = wide.chunk(2, -1)
    close(npu.npu_gelu(x, approximate="tanh"), F.gelu(wide, approximate="tanh"))
    close(npu.npu_gelu(x), F.gelu(wide))
    close(npu.npu_fast_gelu(x), wide * torch.sigmoid(1.702 * wide))
    close(npu.npu_gelu_mul(x), F.gelu(a) * b)
    close(npu.npu_geglu(x)[0], a * F.gelu(b, approximate="tanh"))
    close(npu.npu_geglu(x, approximate=0, activate_left=True)[0], F.gelu(a) * b)
    close(npu.npu_swiglu(x), F.silu(a) * b)
    close(npu.npu_silu(x), F.silu(wide))


def test_convolution() -> None:
    x, weight = normal(1, 4, 5, 6, 7, dtype=F32), normal(6, 2, 3, 3, 3, dtype=F32, seed=1)
    bias = normal(6, dtype=F32)
    geometry = ([2, 1, 1], [1, 0, 1], [1, 2, 1])
    expected = F.conv3d(x.double(), weight.double(), bias.double(), *geometry, 2)
    for op in (npu.npu_conv3d, npu.npu_convolution):
        close(op(x, weight, bias, *geometry, 2), expected)
    assert math.prod(expected.shape) > 0


def test_ring_update() -> None:
    """Two halves of the keys, merged by softmax maxima and sums."""
    q, k, v = (normal(8, 2, 64, dtype=F32, seed=i) for i in range(3))
    call = (4, "SBH")
    whole = npu.npu_fusion_attention(q, k, v, *call, scale=0.2)
    parts = [
        npu.npu_fusion_attention(q, k[s], v[s], *call, scale=0.2)
        for s in (slice(0, 3), slice(3, 8))
    ]
    merged = npu.npu_ring_attention_update(*parts[0][:3], *parts[1][:3])
    close(merged[0], whole[0].double())
    torch.testing.assert_close(merged[1] + merged[2].log(), whole[1] + whole[2].log())
