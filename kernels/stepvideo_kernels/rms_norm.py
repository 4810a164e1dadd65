"""RMSNorm over the last axis, many short rows per program.

Rows of 128 (a head) are 256 bytes in bf16: one program per row leaves most of a warp's loads
empty, and published row-per-program kernels fall to a quarter of the bandwidth there (2.09 against
0.41-0.65 TB/s at [4608, 48, 128]). Here a program takes as many rows as fill its loads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from stepvideo_kernels.launch import launch, power_of_2, rows_of, wide, wide_type


@triton.jit
def _rms_norm_kernel(
    x_ptr,
    weight_ptr,
    out_ptr,
    num_rows,
    x_row_stride,
    x_col_stride,
    EPS: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    cols = tl.arange(0, BLOCK).to(tl.int64)
    inside = (rows < num_rows)[:, None] & (cols < WIDTH)[None, :]
    x = tl.load(
        x_ptr + rows[:, None] * x_row_stride + cols[None, :] * x_col_stride, mask=inside, other=0.0
    ).to(WIDE)
    weight = tl.load(weight_ptr + cols, mask=cols < WIDTH, other=0.0).to(WIDE)
    scale = tl.rsqrt(tl.sum(x * x, axis=1) / WIDTH + EPS)
    out = x * scale[:, None] * weight[None, :]
    tl.store(
        out_ptr + rows[:, None] * WIDTH + cols[None, :],
        out.to(out_ptr.dtype.element_ty),
        mask=inside,
    )


@dataclass(frozen=True, kw_only=True)
class RowConfig:
    """rows per program; num_warps per program."""

    rows: int
    num_warps: int


def default_config(width: int) -> RowConfig:
    """4096 elements per program at least: 32 elements, four 16-byte bf16 loads, per thread.

    Arithmetic, not a measurement: enough bytes in flight per thread to cover the latency of HBM.
    """
    block = power_of_2(width)
    rows = max(1, 4096 // block)
    return RowConfig(rows=rows, num_warps=min(max(rows * block // 1024, 1), 16))


def _candidates(width: int) -> list[RowConfig]:
    block = power_of_2(width)
    return [
        RowConfig(rows=max(1, elements // block), num_warps=warps)
        for elements in (2048, 4096, 8192, 16384)
        for warps in (2, 4, 8, 16)
    ]


def triton_rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last axis.

    x: [..., D], any strides; weight: contiguous [D]. Returns a contiguous tensor of x's shape and
    dtype; float32 inside (float64 for float64), rounded once.
    """
    width = x.shape[-1]
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    rows = rows_of(x)
    num_rows = rows.shape[0]

    def run(config: RowConfig) -> None:
        _rms_norm_kernel[(triton.cdiv(num_rows, config.rows),)](
            rows,
            weight,
            out,
            num_rows,
            rows.stride(0),
            rows.stride(1),
            EPS=eps,
            WIDTH=width,
            ROWS=config.rows,
            BLOCK=power_of_2(width),
            WIDE=wide_type(x.dtype),
            num_warps=config.num_warps,
        )

    bucket = (x.dtype, width, power_of_2(num_rows))
    launch("rms_norm", bucket, x, run, default_config(width), _candidates(width))
    return out


def rms_norm_twin(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The same in plain torch."""
    rows = wide(x)
    scale = torch.rsqrt(rows.square().mean(dim=-1, keepdim=True) + eps)
    return (rows * scale * wide(weight)).to(x.dtype)
