"""Convolutions as cuDNN likes them, channels last and below 2^31 elements, and pixel (un)shuffles.

Channels-last is asked of the input and comes back in the output, and the norm in front writes the
zero frames, so between two layers there is neither a flip nor a padding copy.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stepvideo_core.ops import (
    CAUSAL_CONV3D,
    CONV2D,
    PIXEL_SHUFFLE_ADD,
    PIXEL_UNSHUFFLE_ADD,
    OpImpl,
)
from stepvideo_core.ops.slicing import CausalConv3dSlices, frames_per_conv2d
from stepvideo_cuda.toolbox import Toolbox

# cuDNN indexes with 32 bits. The widest decoder layer has 2.76e9 elements, and the official code
# slices from 2^30 on; below that, no offset inside a slice, padding included, comes near 2^31.
MAX_ELEMENTS = 1 << 30


@contextlib.contextmanager
def _ieee_products(dtype: torch.dtype) -> Iterator[None]:
    """float32 convolutions without TF32, which torch allows cuDNN by default: it keeps 10 bits."""
    if dtype != torch.float32:
        yield
        return
    cudnn = torch.backends.cudnn
    with cudnn.flags(
        enabled=cudnn.enabled,
        benchmark=cudnn.benchmark,
        deterministic=cudnn.deterministic,
        allow_tf32=False,
    ):
        yield


def sliced_causal_conv3d(
    x_BCTHW: Tensor,
    weight_OIKKK: Tensor,
    bias_O: Tensor,
    stride: tuple[int, int, int],
    front_frames: int,
    max_elements: int,
) -> Tensor:
    """The convolution in pieces of at most `max_elements`: some output frames of one sample."""
    pad = weight_OIKKK.shape[-1] // 2
    x = x_BCTHW.contiguous(memory_format=torch.channels_last_3d)

    def convolve(piece: Tensor) -> Tensor:
        return F.conv3d(piece, weight_OIKKK, bias_O, stride=stride, padding=(0, pad, pad))

    slices = CausalConv3dSlices.plan(x, weight_OIKKK, stride, front_frames, max_elements)
    with _ieee_products(x.dtype):
        if slices.whole:
            out = convolve(F.pad(x, (0, 0, 0, 0, front_frames, 0)) if front_frames else x)
            # On one CPU thread torch answers a 1x1x1 kernel in its default format.
            return out.contiguous(memory_format=torch.channels_last_3d)
        out = torch.empty(
            slices.out_shape,
            dtype=x.dtype,
            device=x.device,
            memory_format=torch.channels_last_3d,
        )
        for piece in slices:
            frames = piece.of_input(x)
            if piece.missing:
                frames = F.pad(frames, (0, 0, 0, 0, piece.missing, 0))
                # Padding an empty piece forgets its memory format; else this is a no-op.
                frames = frames.contiguous(memory_format=torch.channels_last_3d)
            piece.of_output(out).copy_(convolve(frames))
        return out


def causal_conv3d(
    x_BCTHW: Tensor,
    weight_OIKKK: Tensor,
    bias_O: Tensor,
    stride: tuple[int, int, int],
    front_frames: int,
) -> Tensor:
    """torch's convolution, channels last, sliced in time where cuDNN's indices would end."""
    return sliced_causal_conv3d(x_BCTHW, weight_OIKKK, bias_O, stride, front_frames, MAX_ELEMENTS)


def sliced_conv2d(
    x_NCHW: Tensor,
    weight_OIKK: Tensor,
    bias_O: Tensor,
    stride: int,
    padding: tuple[int, int, int, int],
    max_elements: int,
) -> Tensor:
    """The convolution in pieces of whole frames of at most `max_elements` elements."""
    left, right, top, bottom = padding
    x = x_NCHW.contiguous(memory_format=torch.channels_last)
    frames = frames_per_conv2d(x, weight_OIKK, padding, max_elements)
    even = left == right and top == bottom

    def convolve(piece: Tensor) -> Tensor:
        if even:
            return F.conv2d(piece, weight_OIKK, bias_O, stride=stride, padding=(top, left))
        return F.conv2d(F.pad(piece, padding), weight_OIKK, bias_O, stride=stride)

    with _ieee_products(x.dtype):
        if x.shape[0] <= frames:
            return convolve(x)
        return torch.cat([convolve(piece) for piece in x.split(frames)])


def conv2d(
    x_NCHW: Tensor,
    weight_OIKK: Tensor,
    bias_O: Tensor,
    stride: int,
    padding: tuple[int, int, int, int],
) -> Tensor:
    """torch's convolution, channels last, sliced over frames where cuDNN's indices would end."""
    return sliced_conv2d(x_NCHW, weight_OIKK, bias_O, stride, padding, MAX_ELEMENTS)


def implementations(toolbox: Toolbox) -> list[OpImpl[Any]]:
    kernels = toolbox.kernels

    def triton_pixel_unshuffle_add(x_BCTHW: Tensor, skip_BCTHW: Tensor, factor: int) -> Tensor:
        return kernels.module.triton_pixel_unshuffle_add(x_BCTHW, skip_BCTHW, factor)

    def triton_pixel_shuffle_add(x_BCTHW: Tensor, skip_BCTHW: Tensor, factor: int) -> Tensor:
        return kernels.module.triton_pixel_shuffle_add(x_BCTHW, skip_BCTHW, factor)

    refuse = toolbox.triton_why_not
    return [
        OpImpl(op=CAUSAL_CONV3D, name="channels_last", fn=causal_conv3d),
        OpImpl(op=CONV2D, name="channels_last", fn=conv2d),
        OpImpl(
            op=PIXEL_UNSHUFFLE_ADD, name="triton", fn=triton_pixel_unshuffle_add, why_not=refuse
        ),
        OpImpl(op=PIXEL_SHUFFLE_ADD, name="triton", fn=triton_pixel_shuffle_add, why_not=refuse),
    ]
