"""GroupNorm with SiLU over video activations, channels innermost, in two reads and one write.

Statistics are exact in the two-pass sense without a second read: each tile computes its own mean
and centred square sum on the registers, and tiles are merged by the parallel-variance formula, so
no sum of squares cancels against a squared mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from stepvideo_kernels.launch import launch, power_of_2, wide, wide_dtype, wide_type


@triton.jit
def _moments_kernel(
    x_ptr,
    mean_ptr,
    square_ptr,
    num_frames,
    num_pixels,
    split_pixels,
    x_batch_stride,
    x_channel_stride,
    x_frame_stride,
    x_pixel_stride,
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Mean and centred square sum of each channel over one split of one frame's pixels."""
    split = tl.program_id(0)
    frame = tl.program_id(1).to(tl.int64)
    channels = tl.arange(0, BLOCK).to(tl.int64)
    real = channels < CHANNELS
    x_frame = x_ptr + frame // num_frames * x_batch_stride + frame % num_frames * x_frame_stride
    start = split.to(tl.int64) * split_pixels
    end = tl.minimum(start + split_pixels, num_pixels)
    mean = tl.zeros([BLOCK], dtype=WIDE)
    square = tl.zeros([BLOCK], dtype=WIDE)
    for walked in range(0, end - start, PIXELS):
        tile = start + walked
        pixels = tile + tl.arange(0, PIXELS)
        inside = (pixels < end)[:, None] & real[None, :]
        at = x_frame + pixels[:, None] * x_pixel_stride + channels[None, :] * x_channel_stride
        x = tl.load(at, mask=inside, other=0.0).to(WIDE)
        count = tl.minimum(end - tile, PIXELS).to(WIDE)
        before = (tile - start).to(WIDE)
        tile_mean = tl.sum(x, axis=0) / count
        centred = tl.where(inside, x - tile_mean[None, :], 0.0)
        difference = tile_mean - mean
        share = count / (before + count)
        mean += difference * share
        square += tl.sum(centred * centred, axis=0) + difference * difference * before * share
    out = (frame * tl.num_programs(0) + split) * CHANNELS + channels
    tl.store(mean_ptr + out, mean, mask=real)
    tl.store(square_ptr + out, square, mask=real)


# num_pixels 1 would turn into a compile-time constant, which has no `.to`.
@triton.jit(do_not_specialize=["num_pixels"])
def _merge_kernel(
    mean_ptr,
    square_ptr,
    group_mean_ptr,
    group_scale_ptr,
    set_frames,
    num_splits,
    num_pixels,
    split_pixels,
    EPS: tl.constexpr,
    CHANNELS: tl.constexpr,
    GROUP: tl.constexpr,
    ENTRIES: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Mean and 1 / sqrt(variance + eps) of one group over one set of frames."""
    group = tl.program_id(0)
    frame_set = tl.program_id(1).to(tl.int64)
    lanes = tl.arange(0, BLOCK)
    columns = group * GROUP + lanes
    num_entries = set_frames * num_splits
    first = frame_set * num_entries
    total = (set_frames * GROUP * num_pixels.to(tl.int64)).to(WIDE)
    # Means are summed as differences to the first one, which keeps their digits under an offset.
    pivot = tl.load(mean_ptr + first * CHANNELS + group * GROUP)
    shift = tl.zeros([ENTRIES, BLOCK], dtype=WIDE)
    for start in range(0, num_entries, ENTRIES):
        entries = start + tl.arange(0, ENTRIES)
        inside = (entries < num_entries)[:, None] & (lanes < GROUP)[None, :]
        before = (entries % num_splits).to(tl.int64) * split_pixels
        count = tl.minimum(num_pixels - before, split_pixels).to(WIDE)
        at = (first + entries)[:, None] * CHANNELS + columns[None, :]
        means = tl.load(mean_ptr + at, mask=inside, other=0.0)
        shift += tl.where(inside, (means - pivot) * count[:, None], 0.0)
    group_mean = pivot + tl.sum(tl.sum(shift, axis=1), axis=0) / total
    squares = tl.zeros([ENTRIES, BLOCK], dtype=WIDE)
    for start in range(0, num_entries, ENTRIES):
        entries = start + tl.arange(0, ENTRIES)
        inside = (entries < num_entries)[:, None] & (lanes < GROUP)[None, :]
        before = (entries % num_splits).to(tl.int64) * split_pixels
        count = tl.minimum(num_pixels - before, split_pixels).to(WIDE)
        at = (first + entries)[:, None] * CHANNELS + columns[None, :]
        means = tl.load(mean_ptr + at, mask=inside, other=0.0)
        square = tl.load(square_ptr + at, mask=inside, other=0.0)
        away = means - group_mean
        squares += tl.where(inside, square + away * away * count[:, None], 0.0)
    variance = tl.sum(tl.sum(squares, axis=1), axis=0) / total
    out = frame_set * tl.num_programs(0) + group
    tl.store(group_mean_ptr + out, group_mean)
    tl.store(group_scale_ptr + out, tl.rsqrt(variance + EPS))


@triton.jit
def _apply_kernel(
    x_ptr,
    weight_ptr,
    bias_ptr,
    group_mean_ptr,
    group_scale_ptr,
    out_ptr,
    num_frames,
    set_frames,
    num_pixels,
    x_batch_stride,
    x_channel_stride,
    x_frame_stride,
    x_pixel_stride,
    FRONT: tl.constexpr,
    SILU: tl.constexpr,
    CHANNELS: tl.constexpr,
    GROUP: tl.constexpr,
    PIXELS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Normalise, scale, SiLU; the first FRONT frames of each sample become zeros."""
    pixels = tl.program_id(0).to(tl.int64) * PIXELS + tl.arange(0, PIXELS)
    out_frame = tl.program_id(1).to(tl.int64)
    sample = out_frame // (FRONT + num_frames)
    frame = out_frame % (FRONT + num_frames) - FRONT
    channels = tl.arange(0, BLOCK).to(tl.int64)
    real = channels < CHANNELS
    inside = (pixels < num_pixels)[:, None] & real[None, :]
    out_at = out_ptr + (out_frame * num_pixels + pixels)[:, None] * CHANNELS + channels[None, :]
    if frame < 0:
        zeros = tl.zeros([PIXELS, BLOCK], dtype=out_ptr.dtype.element_ty)
        tl.store(out_at, zeros, mask=inside)
    else:
        groups = (sample * num_frames + frame) // set_frames * (CHANNELS // GROUP)
        groups += channels // GROUP
        mean = tl.load(group_mean_ptr + groups, mask=real, other=0.0)
        factor = tl.load(group_scale_ptr + groups, mask=real, other=0.0)
        factor *= tl.load(weight_ptr + channels, mask=real, other=0.0).to(WIDE)
        bias = tl.load(bias_ptr + channels, mask=real, other=0.0).to(WIDE)
        x_frame = x_ptr + sample * x_batch_stride + frame * x_frame_stride
        x_at = x_frame + pixels[:, None] * x_pixel_stride + channels[None, :] * x_channel_stride
        x = tl.load(x_at, mask=inside, other=0.0).to(WIDE)
        out = (x - mean[None, :]) * factor[None, :] + bias[None, :]
        if SILU:
            out = out * tl.sigmoid(out)
        tl.store(out_at, out.to(out_ptr.dtype.element_ty), mask=inside)


@dataclass(frozen=True, kw_only=True)
class GroupNormConfig:
    """elements per tile; tiles that one statistics program walks through; num_warps."""

    elements: int
    tiles: int
    num_warps: int

    def pixels(self, channels: int) -> int:
        return max(1, self.elements // power_of_2(channels))


def default_config(num_elements: int) -> GroupNormConfig:
    """Up to 32 tiles per statistics program, as long as 1024 programs remain.

    Arithmetic, not a measurement: the partial statistics of a program are 8 bytes per channel, so
    32 tiles of 32 pixels and more make them under 0.5 % of what it reads, and 1024 programs are
    several for each of 132 multiprocessors. 32 elements a thread, as in the other kernels.
    """
    elements = 8192
    tiles = min(max(num_elements // (elements * 1024), 1), 32)
    return GroupNormConfig(elements=elements, tiles=tiles, num_warps=8)


def _candidates(num_elements: int) -> list[GroupNormConfig]:
    tiles = default_config(num_elements).tiles
    return [
        GroupNormConfig(elements=elements, tiles=tiles, num_warps=warps)
        for elements in (2048, 4096, 8192, 16384)
        for warps in (4, 8, 16)
    ]


def _one_pixel_stride(x_BCTHW: Tensor) -> Tensor:
    """x if one stride walks through rows and columns, else a channels-last copy."""
    height, width = x_BCTHW.shape[3:]
    if height == 1 or x_BCTHW.stride(3) == width * x_BCTHW.stride(4):
        return x_BCTHW
    return x_BCTHW.contiguous(memory_format=torch.channels_last_3d)


def triton_group_norm_silu(
    x_BCTHW: Tensor,
    weight_C: Tensor,
    bias_C: Tensor,
    num_groups: int,
    eps: float,
    per_frame: bool,
    silu: bool,
    front_frames: int,
) -> Tensor:
    """GroupNorm over (channels of a group, pixels), of each frame or of all; optionally SiLU.

    x_BCTHW: [B, C, T, H, W] in any memory format; weight_C, bias_C: contiguous [C].
    Returns [B, C, front_frames + T, H, W], channels last, in x's dtype; the front frames are
    zeros. float32 inside (float64 for float64), rounded once.
    """
    batch, channels, num_frames, height, width = x_BCTHW.shape
    num_pixels, group = height * width, channels // num_groups
    set_frames = 1 if per_frame else num_frames
    num_sets = batch * num_frames // set_frames
    x = _one_pixel_stride(x_BCTHW)
    x_strides = (x.stride(0), x.stride(1), x.stride(2), x.stride(4))
    device, dtype = x.device, wide_dtype(x.dtype)
    out = torch.empty(
        (batch, channels, front_frames + num_frames, height, width),
        dtype=x.dtype,
        device=device,
        memory_format=torch.channels_last_3d,
    )
    group_mean, group_scale = torch.empty((2, num_sets, num_groups), dtype=dtype, device=device)

    def run(config: GroupNormConfig) -> None:
        pixels, block = config.pixels(channels), power_of_2(channels)
        split_pixels = pixels * config.tiles
        num_splits = triton.cdiv(num_pixels, split_pixels)
        shape = (2, batch * num_frames, num_splits, channels)
        mean, square = torch.empty(shape, dtype=dtype, device=device)
        sizes = {"CHANNELS": channels, "BLOCK": block, "WIDE": wide_type(x.dtype)}
        _moments_kernel[(num_splits, batch * num_frames)](
            x,
            mean,
            square,
            num_frames,
            num_pixels,
            split_pixels,
            *x_strides,
            PIXELS=pixels,
            num_warps=config.num_warps,
            **sizes,
        )
        _merge_kernel[(num_groups, num_sets)](
            mean,
            square,
            group_mean,
            group_scale,
            set_frames,
            num_splits,
            num_pixels,
            split_pixels,
            EPS=eps,
            CHANNELS=channels,
            GROUP=group,
            ENTRIES=max(1, 1024 // power_of_2(group)),
            BLOCK=power_of_2(group),
            WIDE=wide_type(x.dtype),
            num_warps=4,
        )
        _apply_kernel[(triton.cdiv(num_pixels, pixels), batch * (front_frames + num_frames))](
            x,
            weight_C,
            bias_C,
            group_mean,
            group_scale,
            out,
            num_frames,
            set_frames,
            num_pixels,
            *x_strides,
            FRONT=front_frames,
            SILU=silu,
            GROUP=group,
            PIXELS=pixels,
            num_warps=config.num_warps,
            **sizes,
        )

    bucket = (x.dtype, channels, num_groups, per_frame, silu, power_of_2(x.numel()))
    launch("group_norm_silu", bucket, x, run, default_config(x.numel()), _candidates(x.numel()))
    return out


def group_norm_silu_twin(
    x_BCTHW: Tensor,
    weight_C: Tensor,
    bias_C: Tensor,
    num_groups: int,
    eps: float,
    per_frame: bool,
    silu: bool,
    front_frames: int,
) -> Tensor:
    """The same in plain torch."""
    x = wide(x_BCTHW).unflatten(1, (num_groups, -1))
    axes = (2, 4, 5) if per_frame else (2, 3, 4, 5)
    centred = x - x.mean(dim=axes, keepdim=True)
    normed = centred * torch.rsqrt(centred.square().mean(dim=axes, keepdim=True) + eps)
    affine = (1, -1, 1, 1, 1)
    out = normed.flatten(1, 2) * wide(weight_C).view(affine) + wide(bias_C).view(affine)
    out = F.silu(out) if silu else out
    return F.pad(out, (0, 0, 0, 0, front_frames, 0)).to(x_BCTHW.dtype)
