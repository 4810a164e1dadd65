"""AdaLN: LayerNorm and modulation in one pass, and the gated residual.

A gated residual fused with the norm behind it is left out on purpose: only the plain addition
after the cross-attention is followed by a norm at once, and fusing that one saves one of about 27
activation passes per block, 45 GB of 2,431 or 0.1 % of a forward at 75,888 tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from stepvideo_kernels.launch import launch, power_of_2, wide, wide_type


@triton.jit
def _adaln_modulate_kernel(
    x_ptr,
    weight_ptr,
    bias_ptr,
    shift_ptr,
    scale_ptr,
    out_ptr,
    num_tokens,
    x_batch_stride,
    x_token_stride,
    x_col_stride,
    shift_stride,
    scale_stride,
    EPS: tl.constexpr,
    AFFINE: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    sample = tl.program_id(1).to(tl.int64)
    first = tl.program_id(0).to(tl.int64) * ROWS
    cols = tl.arange(0, BLOCK).to(tl.int64)
    inside = cols < WIDTH
    # The four parameter rows collapse to one factor and one offset, read once for ROWS tokens:
    # per token they would be three times the token's own bytes.
    factor = 1.0 + tl.load(scale_ptr + sample * scale_stride + cols, mask=inside, other=0.0).to(
        WIDE
    )
    offset = tl.load(shift_ptr + sample * shift_stride + cols, mask=inside, other=0.0).to(WIDE)
    if AFFINE:
        offset += tl.load(bias_ptr + cols, mask=inside, other=0.0).to(WIDE) * factor
        factor *= tl.load(weight_ptr + cols, mask=inside, other=0.0).to(WIDE)
    for row in range(0, tl.minimum(num_tokens - first, ROWS)):
        token = first + row
        at = x_ptr + sample * x_batch_stride + token * x_token_stride
        x = tl.load(at + cols * x_col_stride, mask=inside, other=0.0).to(WIDE)
        centred = tl.where(inside, x - tl.sum(x, axis=0) / WIDTH, 0.0)
        normed = centred * tl.rsqrt(tl.sum(centred * centred, axis=0) / WIDTH + EPS)
        out = normed * factor + offset
        tl.store(
            out_ptr + (sample * num_tokens + token) * WIDTH + cols,
            out.to(out_ptr.dtype.element_ty),
            mask=inside,
        )


@triton.jit
def _gated_residual_kernel(
    x_ptr,
    y_ptr,
    gate_ptr,
    out_ptr,
    num_tokens,
    x_batch_stride,
    x_token_stride,
    x_col_stride,
    y_batch_stride,
    y_token_stride,
    y_col_stride,
    gate_stride,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    COL_BLOCKS: tl.constexpr = (WIDTH + BLOCK - 1) // BLOCK
    sample = tl.program_id(1).to(tl.int64)
    tokens = (tl.program_id(0) // COL_BLOCKS).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    cols = (tl.program_id(0) % COL_BLOCKS).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = (tokens < num_tokens)[:, None] & (cols < WIDTH)[None, :]
    x_rows = x_ptr + sample * x_batch_stride + tokens * x_token_stride
    y_rows = y_ptr + sample * y_batch_stride + tokens * y_token_stride
    x = tl.load(x_rows[:, None] + cols[None, :] * x_col_stride, mask=inside, other=0.0).to(WIDE)
    y = tl.load(y_rows[:, None] + cols[None, :] * y_col_stride, mask=inside, other=0.0).to(WIDE)
    gate = tl.load(gate_ptr + sample * gate_stride + cols, mask=cols < WIDTH, other=0.0).to(WIDE)
    out = x + y * gate[None, :]
    out_rows = out_ptr + (sample * num_tokens + tokens) * WIDTH
    tl.store(out_rows[:, None] + cols[None, :], out.to(out_ptr.dtype.element_ty), mask=inside)


@dataclass(frozen=True, kw_only=True)
class ModulateConfig:
    """Tokens per program, one after the other; num_warps per program."""

    rows: int
    num_warps: int


def default_modulate_config(width: int, num_tokens: int) -> ModulateConfig:
    """16 tokens per program where that still leaves thousands of programs, else one.

    Arithmetic, not a measurement: at 16 the parameter rows add 3/16 of a token's bytes from the
    second-level cache. 8192 columns on 8 warps are 32 elements a thread.
    """
    rows = 16 if num_tokens >= 16384 else 1
    return ModulateConfig(rows=rows, num_warps=min(max(power_of_2(width) // 1024, 1), 16))


def _modulate_candidates() -> list[ModulateConfig]:
    return [
        ModulateConfig(rows=rows, num_warps=warps)
        for rows in (1, 4, 8, 16, 32)
        for warps in (4, 8, 16)
    ]


@dataclass(frozen=True, kw_only=True)
class TileConfig:
    """rows x cols elements per program; num_warps per program."""

    rows: int
    cols: int
    num_warps: int


# Two inputs of 16 elements a thread each: four 16-byte bf16 loads in flight; 1024 divides 6144.
# Arithmetic, not a measurement.
DEFAULT_TILE = TileConfig(rows=4, cols=1024, num_warps=8)
_TILES = tuple(
    TileConfig(rows=rows, cols=cols, num_warps=warps)
    for rows in (1, 2, 4, 8)
    for cols in (512, 1024, 2048)
    for warps in (4, 8)
)


def _dense_rows(row_BD: Tensor) -> Tensor:
    """One parameter row per sample, dense within a row; the samples may lie apart."""
    return row_BD if row_BD.stride(1) == 1 else row_BD.contiguous()


def triton_adaln_modulate(
    x_BSD: Tensor,
    weight_D: Tensor | None,
    bias_D: Tensor | None,
    eps: float,
    shift_BD: Tensor,
    scale_BD: Tensor,
) -> Tensor:
    """LayerNorm(x) * (1 + scale) + shift, two-pass statistics on the registers.

    x_BSD: [B, S, D], any strides; weight_D, bias_D: contiguous [D] or both None; shift_BD,
    scale_BD: [B, D]. Returns a contiguous [B, S, D] in x's dtype; float32 inside (float64 for
    float64), rounded once.
    """
    batch, num_tokens, width = x_BSD.shape
    out = torch.empty(x_BSD.shape, dtype=x_BSD.dtype, device=x_BSD.device)
    shift, scale = _dense_rows(shift_BD), _dense_rows(scale_BD)

    def run(config: ModulateConfig) -> None:
        _adaln_modulate_kernel[(triton.cdiv(num_tokens, config.rows), batch)](
            x_BSD,
            weight_D if weight_D is not None else x_BSD,
            bias_D if bias_D is not None else x_BSD,
            shift,
            scale,
            out,
            num_tokens,
            *x_BSD.stride(),
            shift.stride(0),
            scale.stride(0),
            EPS=eps,
            AFFINE=weight_D is not None,
            WIDTH=width,
            ROWS=config.rows,
            BLOCK=power_of_2(width),
            WIDE=wide_type(x_BSD.dtype),
            num_warps=config.num_warps,
        )

    bucket = (x_BSD.dtype, width, weight_D is not None, power_of_2(num_tokens))
    default = default_modulate_config(width, num_tokens)
    launch("adaln_modulate", bucket, x_BSD, run, default, _modulate_candidates())
    return out


def triton_gated_residual(x_BSD: Tensor, y_BSD: Tensor, gate_BD: Tensor) -> Tensor:
    """x + gate * y.

    x_BSD, y_BSD: [B, S, D], any strides; gate_BD: [B, D]. Returns a new contiguous [B, S, D] in
    x's dtype; float32 inside (float64 for float64), rounded once.
    """
    batch, num_tokens, width = x_BSD.shape
    out = torch.empty(x_BSD.shape, dtype=x_BSD.dtype, device=x_BSD.device)
    gate = _dense_rows(gate_BD)

    def run(config: TileConfig) -> None:
        tiles = triton.cdiv(num_tokens, config.rows) * triton.cdiv(width, config.cols)
        _gated_residual_kernel[(tiles, batch)](
            x_BSD,
            y_BSD,
            gate,
            out,
            num_tokens,
            *x_BSD.stride(),
            *y_BSD.stride(),
            gate.stride(0),
            WIDTH=width,
            ROWS=config.rows,
            BLOCK=config.cols,
            WIDE=wide_type(x_BSD.dtype),
            num_warps=config.num_warps,
        )

    bucket = (x_BSD.dtype, width, power_of_2(num_tokens))
    launch("gated_residual", bucket, x_BSD, run, DEFAULT_TILE, _TILES)
    return out


def adaln_modulate_twin(
    x_BSD: Tensor,
    weight_D: Tensor | None,
    bias_D: Tensor | None,
    eps: float,
    shift_BD: Tensor,
    scale_BD: Tensor,
) -> Tensor:
    """The same in plain torch."""
    x = wide(x_BSD)
    centred = x - x.mean(dim=-1, keepdim=True)
    normed = centred * torch.rsqrt(centred.square().mean(dim=-1, keepdim=True) + eps)
    if weight_D is not None and bias_D is not None:
        normed = normed * wide(weight_D) + wide(bias_D)
    return (normed * (1 + wide(scale_BD)[:, None]) + wide(shift_BD)[:, None]).to(x_BSD.dtype)


def gated_residual_twin(x_BSD: Tensor, y_BSD: Tensor, gate_BD: Tensor) -> Tensor:
    """The same in plain torch."""
    return (wide(x_BSD) + wide(y_BSD) * wide(gate_BD)[:, None]).to(x_BSD.dtype)
