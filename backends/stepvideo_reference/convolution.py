"""Convolutions and pixel (un)shuffles of the video autoencoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stepvideo_core.ops import (
    CAUSAL_CONV3D,
    CONV2D,
    PIXEL_SHUFFLE_ADD,
    PIXEL_UNSHUFFLE_ADD,
    OpImpl,
    Site,
)
from stepvideo_reference.precision import wide


def eager_causal_conv3d(
    x_BCTHW: Tensor,
    weight_OIKKK: Tensor,
    bias_O: Tensor,
    stride: tuple[int, int, int],
    front_frames: int,
) -> Tensor:
    """The meaning of the operator: pad, then torch's convolution."""
    pad = weight_OIKKK.shape[-1] // 2
    x = F.pad(x_BCTHW, (pad, pad, pad, pad, front_frames, 0))
    return F.conv3d(x, weight_OIKKK, bias_O, stride=stride)


def eager_conv2d(
    x_NCHW: Tensor,
    weight_OIKK: Tensor,
    bias_O: Tensor,
    stride: int,
    padding: tuple[int, int, int, int],
) -> Tensor:
    """The meaning of the operator: pad, then torch's convolution."""
    return F.conv2d(F.pad(x_NCHW, padding), weight_OIKK, bias_O, stride=stride)


def channels_last_causal_conv3d(
    x_BCTHW: Tensor,
    weight_OIKKK: Tensor,
    bias_O: Tensor,
    stride: tuple[int, int, int],
    front_frames: int,
) -> Tensor:
    """torch's convolution with channels innermost; a pointwise one as a matrix product."""
    x, weight, bias = _convolvable(x_BCTHW, weight_OIKKK, bias_O)
    pad = weight.shape[-1] // 2
    if pad == 0 and stride == (1, 1, 1) and front_frames == 0:
        out = F.linear(x.permute(0, 2, 3, 4, 1), weight.flatten(1), bias).permute(0, 4, 1, 2, 3)
    else:
        x = x.contiguous(memory_format=torch.channels_last_3d)
        if front_frames:
            x = F.pad(x, (0, 0, 0, 0, front_frames, 0))
        out = F.conv3d(x, weight, bias, stride=stride, padding=(0, pad, pad))
    return out.to(x_BCTHW.dtype)


def channels_last_conv2d(
    x_NCHW: Tensor,
    weight_OIKK: Tensor,
    bias_O: Tensor,
    stride: int,
    padding: tuple[int, int, int, int],
) -> Tensor:
    """torch's convolution with channels innermost; symmetric padding without a copy."""
    x, weight, bias = _convolvable(x_NCHW, weight_OIKK, bias_O)
    x = x.contiguous(memory_format=torch.channels_last)
    if len(set(padding)) == 1:
        out = F.conv2d(x, weight, bias, stride=stride, padding=padding[0])
    else:
        out = F.conv2d(F.pad(x, padding), weight, bias, stride=stride)
    return out.to(x_NCHW.dtype)


def _convolvable(*tensors: Tensor) -> tuple[Tensor, ...]:
    """float16 as float32: few CPUs convolve it, and torch's way around took 30 x as long here."""
    if tensors[0].dtype == torch.float16:
        return tuple(tensor.float() for tensor in tensors)
    return tensors


def _channels_last_why_not(site: Site) -> list[str]:
    if site.device.type != "cpu":
        return [f"its layout was measured to pay on the cpu (1.1-1.5 x), not on {site.device.type}"]
    return []


def _unshuffle(x_BCTHW: Tensor, factor: int) -> Tensor:
    x = F.pad(x_BCTHW, (0, 0, 0, 0, factor - 1, 0))
    batch, channels, frames, height, width = x.shape
    f = factor
    x = x.reshape(batch, channels, frames // f, f, height // f, f, width // f, f)
    return x.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(
        batch, channels * f**3, frames // f, height // f, width // f
    )


def eager_pixel_unshuffle_add(x_BCTHW: Tensor, skip_BCTHW: Tensor, factor: int) -> Tensor:
    """The meaning of the operator."""
    out = wide(_unshuffle(x_BCTHW, factor))
    skip = wide(_unshuffle(skip_BCTHW, factor)).unflatten(1, (out.shape[1], -1)).mean(dim=2)
    return (out + skip).to(x_BCTHW.dtype)


def eager_pixel_shuffle_add(x_BCTHW: Tensor, skip_BCTHW: Tensor, factor: int) -> Tensor:
    """The meaning of the operator."""
    skip = wide(skip_BCTHW).repeat_interleave(x_BCTHW.shape[1] // skip_BCTHW.shape[1], dim=1)
    x = wide(x_BCTHW) + skip
    batch, channels, frames, height, width = x.shape
    f = factor
    x = x.reshape(batch, channels // f**3, f, f, f, frames, height, width)
    x = x.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(
        batch, channels // f**3, frames * f, height * f, width * f
    )
    return x[:, :, f - 1 :].to(x_BCTHW.dtype)


IMPLS = (
    OpImpl(op=CAUSAL_CONV3D, name="eager", fn=eager_causal_conv3d),
    OpImpl(
        op=CAUSAL_CONV3D,
        name="channels_last",
        fn=channels_last_causal_conv3d,
        rank=10,
        why_not=_channels_last_why_not,
    ),
    OpImpl(op=CONV2D, name="eager", fn=eager_conv2d),
    OpImpl(
        op=CONV2D,
        name="channels_last",
        fn=channels_last_conv2d,
        rank=10,
        why_not=_channels_last_why_not,
    ),
    OpImpl(op=PIXEL_UNSHUFFLE_ADD, name="eager", fn=eager_pixel_unshuffle_add),
    OpImpl(op=PIXEL_SHUFFLE_ADD, name="eager", fn=eager_pixel_shuffle_add),
)
