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
    """The convolution in pieces of whole samples or frames of at most `max_elements` elements.

    A frame needs k frames of input, so a piece is never smaller than one output frame.
    """
    kernel = weight_OIKKK.shape[-1]
    pad = kernel // 2
    x = x_BCTHW.contiguous(memory_format=torch.channels_last_3d)
    batch, in_channels, in_frames, height, width = x.shape
    step = stride[0]
    frames = (in_frames + front_frames - kernel) // step + 1
    out_height, out_width = (height - 1) // stride[1] + 1, (width - 1) // stride[2] + 1

    def convolve(piece: Tensor) -> Tensor:
        return F.conv3d(piece, weight_OIKKK, bias_O, stride=stride, padding=(0, pad, pad))

    in_frame = in_channels * height * width
    out_frame = weight_OIKKK.shape[0] * out_height * out_width
    largest = max(batch * (in_frames + front_frames) * in_frame, batch * frames * out_frame)
    with _ieee_products(x.dtype):
        if largest <= max_elements:
            out = convolve(F.pad(x, (0, 0, 0, 0, front_frames, 0)) if front_frames else x)
            # On one CPU thread torch answers a 1x1x1 kernel in its default format.
            return out.contiguous(memory_format=torch.channels_last_3d)
        rows = min(max_elements // out_frame, (max_elements // in_frame - kernel) // step + 1)
        rows = max(rows, 1)
        out = torch.empty(
            (batch, weight_OIKKK.shape[0], frames, out_height, out_width),
            dtype=x.dtype,
            device=x.device,
            memory_format=torch.channels_last_3d,
        )
        for sample in range(batch):
            one = x[sample : sample + 1]
            for first in range(0, frames, rows):
                last = min(first + rows, frames)
                begin = first * step - front_frames
                end = (last - 1) * step - front_frames + kernel
                piece = one[:, :, max(begin, 0) : max(end, 0)]
                if begin < 0:
                    piece = F.pad(piece, (0, 0, 0, 0, min(end, 0) - begin, 0))
                    # Padding an empty piece forgets its memory format; else this is a no-op.
                    piece = piece.contiguous(memory_format=torch.channels_last_3d)
                out[sample : sample + 1, :, first:last] = convolve(piece)
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
    num_frames, in_channels, height, width = x.shape
    padded = (height + top + bottom) * (width + left + right)
    rows = max(1, max_elements // (max(in_channels, weight_OIKK.shape[0]) * padded))
    even = left == right and top == bottom

    def convolve(piece: Tensor) -> Tensor:
        if even:
            return F.conv2d(piece, weight_OIKK, bias_O, stride=stride, padding=(top, left))
        return F.conv2d(F.pad(piece, padding), weight_OIKK, bias_O, stride=stride)

    with _ieee_products(x.dtype):
        if num_frames <= rows:
            return convolve(x)
        return torch.cat([convolve(piece) for piece in x.split(rows)])


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
