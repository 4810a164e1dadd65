"""RMSNorm and RoPE-3D of queries and keys in one pass over the packed projection.

Apart, the two steps move eight activations per block (read and write q and k twice); fused they
move four, and nothing is rounded between them. The value third is not touched.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from stepvideo_kernels.launch import launch, power_of_2, wide, wide_type
from stepvideo_kernels.rms_norm import rms_norm_twin
from stepvideo_kernels.rope import (
    HeadConfig,
    default_config,
    head_candidates,
    partner_run,
    rope_3d_twin,
    rotation_partner,
)


@triton.jit
def _norm_rotate(
    rows,
    weight_ptr,
    out_rows,
    cos,
    sin,
    cols,
    partner,
    inside,
    col_stride,
    EPS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    WIDE: tl.constexpr,
):
    """rows, out_rows: pointers to the heads [HEADS]; sin carries the sign of the partner."""
    x = tl.load(rows[:, None] + cols[None, :] * col_stride, mask=inside, other=0.0).to(WIDE)
    other = tl.load(rows[:, None] + partner[None, :] * col_stride, mask=inside, other=0.0).to(WIDE)
    weight = tl.load(weight_ptr + cols, mask=cols < HEAD_DIM, other=0.0).to(WIDE)
    other_weight = tl.load(weight_ptr + partner, mask=cols < HEAD_DIM, other=0.0).to(WIDE)
    scale = tl.rsqrt(tl.sum(x * x, axis=1) / HEAD_DIM + EPS)
    x = x * scale[:, None] * weight[None, :]
    other = other * scale[:, None] * other_weight[None, :]
    out = x * cos[None, :] + other * sin[None, :]
    tl.store(out_rows[:, None] + cols[None, :], out.to(out_rows.dtype.element_ty), mask=inside)


@triton.jit
def _qk_norm_rope_kernel(
    qkv_ptr,
    q_weight_ptr,
    k_weight_ptr,
    cos_ptr,
    sin_ptr,
    q_ptr,
    k_ptr,
    num_tokens,
    qkv_batch_stride,
    qkv_token_stride,
    qkv_head_stride,
    qkv_col_stride,
    EPS: tl.constexpr,
    NUM_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    A0: tl.constexpr,
    A1: tl.constexpr,
    A2: tl.constexpr,
    RUN: tl.constexpr,
    HEADS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    HEAD_BLOCKS: tl.constexpr = (NUM_HEADS + HEADS - 1) // HEADS
    token = (tl.program_id(0) // HEAD_BLOCKS).to(tl.int64)
    sample = tl.program_id(1).to(tl.int64)
    heads = (tl.program_id(0) % HEAD_BLOCKS) * HEADS + tl.arange(0, HEADS).to(tl.int64)
    cols = tl.arange(0, BLOCK).to(tl.int64)
    partner, sign = rotation_partner(cols, A0, A1, A2, RUN)
    inside = (heads < NUM_HEADS)[:, None] & (cols < HEAD_DIM)[None, :]
    cos = tl.load(cos_ptr + token * HEAD_DIM + cols, mask=cols < HEAD_DIM, other=0.0).to(WIDE)
    sin = tl.load(sin_ptr + token * HEAD_DIM + cols, mask=cols < HEAD_DIM, other=0.0).to(WIDE)
    sin = sin * sign.to(WIDE)
    rows = qkv_ptr + sample * qkv_batch_stride + token * qkv_token_stride + heads * qkv_head_stride
    out_offset = ((sample * num_tokens + token) * NUM_HEADS + heads) * HEAD_DIM
    _norm_rotate(
        rows,
        q_weight_ptr,
        q_ptr + out_offset,
        cos,
        sin,
        cols,
        partner,
        inside,
        qkv_col_stride,
        EPS,
        HEAD_DIM,
        WIDE,
    )
    _norm_rotate(
        rows + HEAD_DIM * qkv_col_stride,
        k_weight_ptr,
        k_ptr + out_offset,
        cos,
        sin,
        cols,
        partner,
        inside,
        qkv_col_stride,
        EPS,
        HEAD_DIM,
        WIDE,
    )


def triton_qk_norm_rope(
    qkv_BSHX: Tensor,
    q_weight_D: Tensor,
    k_weight_D: Tensor,
    eps: float,
    cos_SD: Tensor,
    sin_SD: Tensor,
    axes: tuple[int, int, int],
) -> tuple[Tensor, Tensor, Tensor]:
    """Unpack, normalise, rotate.

    qkv_BSHX: [B, S, H, 3 D], per head [q | k | v], any strides; weights: contiguous [D];
    cos_SD, sin_SD: contiguous [S, D], float32 (float64 for float64 inputs); axes sum to D.
    Returns q and k, contiguous [B, S, H, D], and v as a view of the input. Wide from the load to
    the one rounding.
    """
    batch, num_tokens, num_heads, packed = qkv_BSHX.shape
    head_dim = packed // 3
    q, k = (
        torch.empty(
            (batch, num_tokens, num_heads, head_dim), dtype=qkv_BSHX.dtype, device=qkv_BSHX.device
        )
        for _ in range(2)
    )

    def run(config: HeadConfig) -> None:
        _qk_norm_rope_kernel[(num_tokens * triton.cdiv(num_heads, config.heads), batch)](
            qkv_BSHX,
            q_weight_D,
            k_weight_D,
            cos_SD,
            sin_SD,
            q,
            k,
            num_tokens,
            *qkv_BSHX.stride(),
            EPS=eps,
            NUM_HEADS=num_heads,
            HEAD_DIM=head_dim,
            A0=axes[0],
            A1=axes[1],
            A2=axes[2],
            RUN=partner_run(axes),
            HEADS=config.heads,
            BLOCK=power_of_2(head_dim),
            WIDE=wide_type(qkv_BSHX.dtype),
            num_warps=config.num_warps,
        )

    bucket = (qkv_BSHX.dtype, num_heads, head_dim, power_of_2(batch * num_tokens))
    launch(
        "qk_norm_rope",
        bucket,
        qkv_BSHX,
        run,
        default_config(num_heads),
        head_candidates(num_heads),
    )
    return q, k, qkv_BSHX[..., 2 * head_dim :]


def qk_norm_rope_twin(
    qkv_BSHX: Tensor,
    q_weight_D: Tensor,
    k_weight_D: Tensor,
    eps: float,
    cos_SD: Tensor,
    sin_SD: Tensor,
    axes: tuple[int, int, int],
) -> tuple[Tensor, Tensor, Tensor]:
    """The same in plain torch."""
    q, k, v = qkv_BSHX.chunk(3, dim=-1)
    q, k = (
        rope_3d_twin(rms_norm_twin(wide(x), wide(weight), eps), cos_SD, sin_SD, axes).to(v.dtype)
        for x, weight in ((q, q_weight_D), (k, k_weight_D))
    )
    return q, k, v
