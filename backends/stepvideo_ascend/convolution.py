"""Convolutions through torch, in pieces below the device's limits, and pixel (un)shuffles by frame.

torch's convolution is aclnn's; HF32, which shortens float32 products, is off (`settings`). The
vendor's npu_conv3d is deprecated and casts the weight.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stepvideo_ascend.toolbox import Toolbox
from stepvideo_core.ops import (
    CAUSAL_CONV3D,
    CONV2D,
    PIXEL_SHUFFLE_ADD,
    PIXEL_UNSHUFFLE_ADD,
    OpImpl,
)
from stepvideo_core.ops.slicing import CausalConv3dSlices, frames_per_conv2d

# Known to fail beyond: 2^30 elements in or out (the official port slices from there on) and inputs
# of 2 GiB (MindSpeed-MM's SafeConv3d).
MAX_ELEMENTS = 1 << 30
MAX_BYTES = 1 << 31


def largest_piece(dtype: torch.dtype) -> int:
    """Elements that one convolution may read or write: 2^30 in half precision, 2^29 in float32."""
    return min(MAX_ELEMENTS, MAX_BYTES // dtype.itemsize)


def sliced_causal_conv3d(
    x_BCTHW: Tensor,
    weight_OIKKK: Tensor,
    bias_O: Tensor,
    stride: tuple[int, int, int],
    front_frames: int,
    max_elements: int,
) -> Tensor:
    """The convolution in pieces of at most `max_elements`, each some output frames of one sample.

    Front frames are padded to the first pieces only.
    """
    pad = weight_OIKKK.shape[-1] // 2

    def convolve(piece: Tensor, missing: int) -> Tensor:
        if missing:
            piece = F.pad(piece, (0, 0, 0, 0, missing, 0))
        return F.conv3d(piece.contiguous(), weight_OIKKK, bias_O, stride, padding=(0, pad, pad))

    slices = CausalConv3dSlices.plan(x_BCTHW, weight_OIKKK, stride, front_frames, max_elements)
    if slices.whole:
        return convolve(x_BCTHW, front_frames)
    out = x_BCTHW.new_empty(slices.out_shape)
    for piece in slices:
        piece.of_output(out).copy_(convolve(piece.of_input(x_BCTHW), piece.missing))
    return out


def torch_causal_conv3d(
    x_BCTHW: Tensor,
    weight_OIKKK: Tensor,
    bias_O: Tensor,
    stride: tuple[int, int, int],
    front_frames: int,
) -> Tensor:
    """torch's convolution, sliced in time where the device's limits ask for it."""
    limit = largest_piece(x_BCTHW.dtype)
    return sliced_causal_conv3d(x_BCTHW, weight_OIKKK, bias_O, stride, front_frames, limit)


def sliced_conv2d(
    x_NCHW: Tensor,
    weight_OIKK: Tensor,
    bias_O: Tensor,
    stride: int,
    padding: tuple[int, int, int, int],
    max_elements: int,
) -> Tensor:
    """The convolution in pieces of whole frames; uneven padding is written out."""
    left, right, top, bottom = padding
    frames = frames_per_conv2d(x_NCHW, weight_OIKK, padding, max_elements)
    even = left == right and top == bottom

    def convolve(piece: Tensor) -> Tensor:
        if even:
            return F.conv2d(piece.contiguous(), weight_OIKK, bias_O, stride, padding=(top, left))
        return F.conv2d(F.pad(piece, padding), weight_OIKK, bias_O, stride)

    if x_NCHW.shape[0] <= frames:
        return convolve(x_NCHW)
    return torch.cat([convolve(piece) for piece in x_NCHW.split(frames)])


def torch_conv2d(
    x_NCHW: Tensor,
    weight_OIKK: Tensor,
    bias_O: Tensor,
    stride: int,
    padding: tuple[int, int, int, int],
) -> Tensor:
    """torch's convolution, sliced over frames where the device's limits ask for it."""
    return sliced_conv2d(x_NCHW, weight_OIKK, bias_O, stride, padding, largest_piece(x_NCHW.dtype))


def _fold(x_BCTHW: Tensor, factor: int) -> Tensor:
    """[B, C, f, H, W] to [B, C, f^3, H / f, W / f]: the neighbours of one output frame."""
    batch, channels, _, height, width = x_BCTHW.shape
    f = factor
    x = x_BCTHW.reshape(batch, channels, f, height // f, f, width // f, f)
    return x.permute(0, 1, 2, 4, 6, 3, 5).reshape(batch, channels, f**3, height // f, width // f)


def framewise_pixel_unshuffle_add(x_BCTHW: Tensor, skip_BCTHW: Tensor, factor: int) -> Tensor:
    """Views and copies, an output frame at a time, so that the float32 sums stay small."""
    batch, channels, frames, height, width = x_BCTHW.shape
    out_frames = (frames + factor - 1) // factor
    depth = channels * factor**3
    out = x_BCTHW.new_empty((batch, depth, out_frames, height // factor, width // factor))
    for index in range(out_frames):
        begin = index * factor - (factor - 1)
        missing = max(0, -begin)
        parts = []
        for source in (x_BCTHW, skip_BCTHW):
            part = source[:, :, max(begin, 0) : begin + factor].float()
            parts.append(_fold(F.pad(part, (0, 0, 0, 0, missing, 0)), factor).flatten(1, 2))
        branch, skip = parts
        out[:, :, index] = branch + skip.unflatten(1, (depth, -1)).mean(dim=2)
    return out


def framewise_pixel_shuffle_add(x_BCTHW: Tensor, skip_BCTHW: Tensor, factor: int) -> Tensor:
    """Views and copies, an input frame at a time, so that the float32 sums stay small."""
    batch, channels, frames, height, width = x_BCTHW.shape
    f, dropped = factor, factor - 1
    size = (batch, channels // f**3, frames * f - dropped, height * f, width * f)
    out = x_BCTHW.new_empty(size)
    for index in range(frames):
        skip = skip_BCTHW[:, :, index].float()
        skip = skip.repeat_interleave(channels // skip_BCTHW.shape[1], dim=1)
        total = x_BCTHW[:, :, index].float() + skip
        cube = total.reshape(batch, channels // f**3, f, f, f, height, width)
        block = cube.permute(0, 1, 2, 5, 3, 6, 4).reshape(*size[:2], f, *size[3:])
        begin = index * f - dropped
        out[:, :, max(begin, 0) : begin + f] = block[:, :, max(-begin, 0) :]
    return out


def implementations(toolbox: Toolbox) -> list[OpImpl[Any]]:
    refuse = toolbox.why_not
    return [
        OpImpl(op=CAUSAL_CONV3D, name="torch", fn=torch_causal_conv3d, why_not=refuse),
        OpImpl(op=CONV2D, name="torch", fn=torch_conv2d, why_not=refuse),
        OpImpl(
            op=PIXEL_UNSHUFFLE_ADD,
            name="framewise",
            fn=framewise_pixel_unshuffle_add,
            why_not=refuse,
        ),
        OpImpl(
            op=PIXEL_SHUFFLE_ADD, name="framewise", fn=framewise_pixel_shuffle_add, why_not=refuse
        ),
    ]
