"""RoPE-3D: three channel groups of a head rotate with the token's frame, row and column."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from stepvideo_kernels.launch import launch, power_of_2, wide_type


@triton.jit
def rotation_partner(cols, A0: tl.constexpr, A1: tl.constexpr, A2: tl.constexpr, RUN: tl.constexpr):
    """For each channel of a head: the channel it is mixed with, and the sign of that one.

    RUN: a divisor of every group's half width, so that partners come in aligned runs of that
    length; without the hint the compiler loads them one by one.

    Within a group (a | b) rotate_half gives (-b | a). The groups have different widths, so no
    reshape finds the partner; the kernels load it once more, which costs the first-level cache
    and no memory traffic, as the same program has just read the row.
    """
    in_first = cols < A0
    in_second = cols < A0 + A1
    base = tl.where(in_first, 0, tl.where(in_second, A0, A0 + A1))
    half = tl.where(in_first, A0 // 2, tl.where(in_second, A1 // 2, A2 // 2))
    lower = cols - base < half
    partner = tl.where(lower, cols + half, cols - half)
    partner = tl.max_contiguous(tl.multiple_of(partner, RUN), RUN)
    return partner, tl.where(lower, -1.0, 1.0)


@triton.jit
def _rope_3d_kernel(
    x_ptr,
    cos_ptr,
    sin_ptr,
    out_ptr,
    num_tokens,
    x_batch_stride,
    x_token_stride,
    x_head_stride,
    x_col_stride,
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
    # Head blocks of one token are neighbours in the grid, so its table rows are read from memory
    # once and from the cache afterwards.
    HEAD_BLOCKS: tl.constexpr = (NUM_HEADS + HEADS - 1) // HEADS
    token = (tl.program_id(0) // HEAD_BLOCKS).to(tl.int64)
    sample = tl.program_id(1).to(tl.int64)
    heads = (tl.program_id(0) % HEAD_BLOCKS) * HEADS + tl.arange(0, HEADS).to(tl.int64)
    cols = tl.arange(0, BLOCK).to(tl.int64)
    partner, sign = rotation_partner(cols, A0, A1, A2, RUN)
    inside = (heads < NUM_HEADS)[:, None] & (cols < HEAD_DIM)[None, :]
    rows = x_ptr + sample * x_batch_stride + token * x_token_stride + heads * x_head_stride
    x = tl.load(rows[:, None] + cols[None, :] * x_col_stride, mask=inside, other=0.0).to(WIDE)
    other = tl.load(rows[:, None] + partner[None, :] * x_col_stride, mask=inside, other=0.0)
    cos = tl.load(cos_ptr + token * HEAD_DIM + cols, mask=cols < HEAD_DIM, other=0.0).to(WIDE)
    sin = tl.load(sin_ptr + token * HEAD_DIM + cols, mask=cols < HEAD_DIM, other=0.0).to(WIDE)
    out = x * cos[None, :] + other.to(WIDE) * (sign.to(WIDE) * sin)[None, :]
    out_rows = out_ptr + ((sample * num_tokens + token) * NUM_HEADS + heads) * HEAD_DIM
    tl.store(out_rows[:, None] + cols[None, :], out.to(out_ptr.dtype.element_ty), mask=inside)


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """heads per program; num_warps per program."""

    heads: int
    num_warps: int


def default_config(num_heads: int) -> HeadConfig:
    """16 heads: they divide the official 48, and share one read of the token's table rows."""
    heads = min(16, power_of_2(num_heads))
    return HeadConfig(heads=heads, num_warps=4 if heads >= 8 else 1)


def head_candidates(num_heads: int) -> list[HeadConfig]:
    return [
        HeadConfig(heads=heads, num_warps=warps)
        for heads in (4, 8, 16, 32)
        if heads <= power_of_2(num_heads)
        for warps in (1, 2, 4, 8)
    ]


def partner_run(axes: tuple[int, int, int]) -> int:
    """Length of the aligned runs of partners: 8 (16 bytes of bf16) for heads of 64 and more."""
    return math.gcd(8, *(width // 2 for width in axes))


def triton_rope_3d(
    x_BSHD: Tensor, cos_SD: Tensor, sin_SD: Tensor, axes: tuple[int, int, int]
) -> Tensor:
    """x * cos + rotate_half(x) * sin in three groups of channels.

    x_BSHD: [B, S, H, D], any strides; cos_SD, sin_SD: contiguous [S, D] tables, float32 (float64
    for float64 inputs); axes: widths of the groups, summing to D.
    Returns a contiguous [B, S, H, D] in x's dtype, rounded once.
    """
    batch, num_tokens, num_heads, head_dim = x_BSHD.shape
    out = torch.empty(x_BSHD.shape, dtype=x_BSHD.dtype, device=x_BSHD.device)

    def run(config: HeadConfig) -> None:
        _rope_3d_kernel[(num_tokens * triton.cdiv(num_heads, config.heads), batch)](
            x_BSHD,
            cos_SD,
            sin_SD,
            out,
            num_tokens,
            *x_BSHD.stride(),
            NUM_HEADS=num_heads,
            HEAD_DIM=head_dim,
            A0=axes[0],
            A1=axes[1],
            A2=axes[2],
            RUN=partner_run(axes),
            HEADS=config.heads,
            BLOCK=power_of_2(head_dim),
            WIDE=wide_type(x_BSHD.dtype),
            num_warps=config.num_warps,
        )

    bucket = (x_BSHD.dtype, num_heads, head_dim, power_of_2(batch * num_tokens))
    launch("rope_3d", bucket, x_BSHD, run, default_config(num_heads), head_candidates(num_heads))
    return out


def rope_3d_twin(
    x_BSHD: Tensor, cos_SD: Tensor, sin_SD: Tensor, axes: tuple[int, int, int]
) -> Tensor:
    """The same in plain torch."""
    x = x_BSHD.to(cos_SD.dtype)
    halves = [part.chunk(2, dim=-1) for part in x.split(axes, dim=-1)]
    rotated = torch.cat([piece for a, b in halves for piece in (-b, a)], dim=-1)
    return (x * cos_SD[:, None] + rotated * sin_SD[:, None]).to(x_BSHD.dtype)
