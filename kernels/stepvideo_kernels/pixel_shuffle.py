"""Space-time pixel shuffle and unshuffle, each with the addition of its shortcut.

Output is written channels-last, a run of channels at a time. The f^3 channels that spread over
neighbouring pixels are read with that stride, but by the same program one after the other, so the
cache turns them into whole lines; memory sees every element once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from stepvideo_kernels.launch import launch, power_of_2, wide, wide_type


@triton.jit
def _pixel_shuffle_kernel(
    x_ptr,
    skip_ptr,
    out_ptr,
    num_frames,
    height,
    width,
    xb,
    xc,
    xt,
    xh,
    xw,
    sb,
    sc,
    st,
    sh,
    sw,
    FACTOR: tl.constexpr,
    REPEAT: tl.constexpr,
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """One tile of input pixels x output channels; CHANNELS counts the output's."""
    COL_BLOCKS: tl.constexpr = (CHANNELS + BLOCK - 1) // BLOCK
    pixels = (tl.program_id(0) // COL_BLOCKS).to(tl.int64) * PIXELS + tl.arange(0, PIXELS)
    channels = (tl.program_id(0) % COL_BLOCKS).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    sample = tl.program_id(1).to(tl.int64)
    t = pixels // (height * width)
    h = pixels // width % height
    w = pixels % width
    inside = (t < num_frames)[:, None] & (channels < CHANNELS)[None, :]
    x_pixel = x_ptr + sample * xb + t * xt + h * xh + w * xw
    skip_pixel = skip_ptr + sample * sb + t * st + h * sh + w * sw
    out_frames = num_frames * FACTOR - (FACTOR - 1)
    for part in range(FACTOR * FACTOR * FACTOR):
        source = channels * (FACTOR * FACTOR * FACTOR) + part
        x = tl.load(x_pixel[:, None] + source[None, :] * xc, mask=inside, other=0.0).to(WIDE)
        skip_at = skip_pixel[:, None] + (source // REPEAT)[None, :] * sc
        x += tl.load(skip_at, mask=inside, other=0.0).to(WIDE)
        out_t = t * FACTOR + part // (FACTOR * FACTOR) - (FACTOR - 1)
        out_h = h * FACTOR + part // FACTOR % FACTOR
        out_w = w * FACTOR + part % FACTOR
        pixel = (sample * out_frames + out_t) * (height * FACTOR) + out_h
        pixel = pixel * (width * FACTOR) + out_w
        tl.store(
            out_ptr + pixel[:, None] * CHANNELS + channels[None, :],
            x.to(out_ptr.dtype.element_ty),
            mask=inside & (out_t >= 0)[:, None],
        )


@triton.jit
def _pixel_unshuffle_kernel(
    x_ptr,
    skip_ptr,
    out_ptr,
    num_frames,
    height,
    width,
    xb,
    xc,
    xt,
    xh,
    xw,
    sb,
    sc,
    st,
    sh,
    sw,
    FACTOR: tl.constexpr,
    GROUP: tl.constexpr,
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """One tile of output pixels x output channels; num_frames, height, width are the output's."""
    COL_BLOCKS: tl.constexpr = (CHANNELS + BLOCK - 1) // BLOCK
    VOLUME: tl.constexpr = FACTOR * FACTOR * FACTOR
    pixels = (tl.program_id(0) // COL_BLOCKS).to(tl.int64) * PIXELS + tl.arange(0, PIXELS)
    channels = (tl.program_id(0) % COL_BLOCKS).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    sample = tl.program_id(1).to(tl.int64)
    t = (pixels // (height * width) * FACTOR - (FACTOR - 1))[:, None]
    h = (pixels // width % height * FACTOR)[:, None]
    w = (pixels % width * FACTOR)[:, None]
    inside = (pixels < num_frames * height * width)[:, None] & (channels < CHANNELS)[None, :]
    part = channels % VOLUME
    t_x = t + (part // (FACTOR * FACTOR))[None, :]
    h_x = h + (part // FACTOR % FACTOR)[None, :]
    w_x = w + (part % FACTOR)[None, :]
    x_at = x_ptr + sample * xb + (channels // VOLUME)[None, :] * xc
    x = tl.load(x_at + t_x * xt + h_x * xh + w_x * xw, mask=inside & (t_x >= 0), other=0.0).to(WIDE)
    total = tl.zeros([PIXELS, BLOCK], dtype=WIDE)
    for member in range(GROUP):
        source = channels * GROUP + member
        part = source % VOLUME
        t_s = t + (part // (FACTOR * FACTOR))[None, :]
        h_s = h + (part // FACTOR % FACTOR)[None, :]
        w_s = w + (part % FACTOR)[None, :]
        skip_at = skip_ptr + sample * sb + (source // VOLUME)[None, :] * sc
        skip_at = skip_at + t_s * st + h_s * sh + w_s * sw
        total += tl.load(skip_at, mask=inside & (t_s >= 0), other=0.0).to(WIDE)
    out_pixel = sample * num_frames * height * width + pixels
    tl.store(
        out_ptr + out_pixel[:, None] * CHANNELS + channels[None, :],
        (x + total / GROUP).to(out_ptr.dtype.element_ty),
        mask=inside,
    )


@dataclass(frozen=True, kw_only=True)
class TileConfig:
    """pixels x channels per program; num_warps per program."""

    pixels: int
    channels: int
    num_warps: int


def default_config(channels: int) -> TileConfig:
    """2048 elements: the shuffle reads each line f^3 = 8 times while it is in the cache, and
    8 x 2048 bf16 elements are 32 KiB of it. Arithmetic, not a measurement."""
    block = min(power_of_2(channels), 128)
    return TileConfig(pixels=2048 // block, channels=block, num_warps=4)


def _candidates(channels: int) -> list[TileConfig]:
    block = power_of_2(channels)
    return [
        TileConfig(pixels=elements // cols, channels=cols, num_warps=4)
        for elements in (1024, 2048, 4096)
        for cols in (32, 64, 128, 256)
        if cols <= block
    ]


def _empty_channels_last(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    return torch.empty(
        shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last_3d
    )


def triton_pixel_shuffle_add(x_BCTHW: Tensor, skip_BCTHW: Tensor, factor: int) -> Tensor:
    """Depth to space-time of x plus its channel-repeated shortcut; the first f - 1 frames dropped.

    x_BCTHW: [B, C, T, H, W]; skip_BCTHW: [B, C', T, H, W], C a multiple of C'; any strides.
    Returns [B, C / f^3, T f - (f - 1), H f, W f], channels last, in x's dtype, rounded once.
    """
    batch, in_channels, frames, height, width = x_BCTHW.shape
    channels = in_channels // factor**3
    out = _empty_channels_last(
        x_BCTHW, (batch, channels, frames * factor - factor + 1, height * factor, width * factor)
    )

    def run(config: TileConfig) -> None:
        tiles = triton.cdiv(frames * height * width, config.pixels)
        _pixel_shuffle_kernel[(tiles * triton.cdiv(channels, config.channels), batch)](
            x_BCTHW,
            skip_BCTHW,
            out,
            frames,
            height,
            width,
            *x_BCTHW.stride(),
            *skip_BCTHW.stride(),
            FACTOR=factor,
            REPEAT=in_channels // skip_BCTHW.shape[1],
            CHANNELS=channels,
            PIXELS=config.pixels,
            BLOCK=config.channels,
            WIDE=wide_type(x_BCTHW.dtype),
            num_warps=config.num_warps,
        )

    bucket = (x_BCTHW.dtype, channels, factor, power_of_2(out.numel()))
    default, candidates = default_config(channels), _candidates(channels)
    launch("pixel_shuffle_add", bucket, x_BCTHW, run, default, candidates)
    return out


def triton_pixel_unshuffle_add(x_BCTHW: Tensor, skip_BCTHW: Tensor, factor: int) -> Tensor:
    """Space-time to depth of x plus the group means of its shortcut, f - 1 zero frames in front.

    x_BCTHW: [B, C, T, H, W]; skip_BCTHW: [B, C', T, H, W], C' a multiple of C; any strides.
    Returns [B, C f^3, (T + f - 1) / f, H / f, W / f], channels last, in x's dtype, rounded once.
    """
    batch, in_channels, frames, height, width = x_BCTHW.shape
    channels = in_channels * factor**3
    size = ((frames + factor - 1) // factor, height // factor, width // factor)
    out = _empty_channels_last(x_BCTHW, (batch, channels, *size))

    def run(config: TileConfig) -> None:
        tiles = triton.cdiv(size[0] * size[1] * size[2], config.pixels)
        _pixel_unshuffle_kernel[(tiles * triton.cdiv(channels, config.channels), batch)](
            x_BCTHW,
            skip_BCTHW,
            out,
            *size,
            *x_BCTHW.stride(),
            *skip_BCTHW.stride(),
            FACTOR=factor,
            GROUP=skip_BCTHW.shape[1] // in_channels,
            CHANNELS=channels,
            PIXELS=config.pixels,
            BLOCK=config.channels,
            WIDE=wide_type(x_BCTHW.dtype),
            num_warps=config.num_warps,
        )

    bucket = (x_BCTHW.dtype, channels, factor, power_of_2(out.numel()))
    default, candidates = default_config(channels), _candidates(channels)
    launch("pixel_unshuffle_add", bucket, x_BCTHW, run, default, candidates)
    return out


def pixel_shuffle_add_twin(x_BCTHW: Tensor, skip_BCTHW: Tensor, factor: int) -> Tensor:
    """The same in plain torch."""
    f, repeat = factor, x_BCTHW.shape[1] // skip_BCTHW.shape[1]
    x = wide(x_BCTHW) + wide(skip_BCTHW).repeat_interleave(repeat, dim=1)
    x = x.unflatten(1, (-1, f, f, f)).permute(0, 1, 5, 2, 6, 3, 7, 4)
    x = x.flatten(6, 7).flatten(4, 5).flatten(2, 3)
    return x[:, :, f - 1 :].to(x_BCTHW.dtype)


def pixel_unshuffle_add_twin(x_BCTHW: Tensor, skip_BCTHW: Tensor, factor: int) -> Tensor:
    """The same in plain torch."""
    f = factor

    def unshuffle(tensor: Tensor) -> Tensor:
        padded = F.pad(wide(tensor), (0, 0, 0, 0, f - 1, 0))
        parts = padded.unflatten(4, (-1, f)).unflatten(3, (-1, f)).unflatten(2, (-1, f))
        return parts.permute(0, 1, 3, 5, 7, 2, 4, 6).flatten(1, 4)

    out = unshuffle(x_BCTHW)
    skip = unshuffle(skip_BCTHW).unflatten(1, (out.shape[1], -1)).mean(dim=2)
    return (out + skip).to(x_BCTHW.dtype)
