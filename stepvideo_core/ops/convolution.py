"""Convolutions and pixel (un)shuffles of the video autoencoder.

Activations are logically [B, C, T, H, W]; the memory format is free, so that an implementation
which prefers channels-last keeps it from layer to layer without a flip.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from stepvideo_core.ops.contract import OpContract, Site
from stepvideo_core.ops.cost import Cost, tensor_bytes


class CausalConv3d(Protocol):
    """3-D convolution that never sees a later frame."""

    def __call__(
        self,
        x_BCTHW: Tensor,
        weight_OIKKK: Tensor,
        bias_O: Tensor,
        stride: tuple[int, int, int],
        front_frames: int,
    ) -> Tensor:
        """Convolve.

        x_BCTHW: [B, I, T, H, W]. weight_OIKKK: [O, I, k, k, k] with k = 1 or 3.
        front_frames: zero frames to put in front of x. With k = 3 a causal layer has two in all;
            what the layer before has already written (`group_norm_silu`) is not asked again.
        Rows and columns are padded with k // 2 zeros on both sides.

        Returns [B, O, (T + front_frames - k) // stride_t + 1, ...] in x's dtype, accumulated in
        float32 at least (float64 for float64 inputs).
        """
        ...


class Conv2d(Protocol):
    """2-D convolution of single frames."""

    def __call__(
        self,
        x_NCHW: Tensor,
        weight_OIKK: Tensor,
        bias_O: Tensor,
        stride: int,
        padding: tuple[int, int, int, int],
    ) -> Tensor:
        """Convolve frames.

        x_NCHW: [N, I, H, W]; weight_OIKK: [O, I, 3, 3]; padding: zeros at (left, right, top,
        bottom), which may differ. Returns [N, O, H', W'] in x's dtype.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class ConvSite(Site):
    """Traits of a convolution call place."""

    in_channels: int
    out_channels: int
    kernel: int
    stride: tuple[int, ...]


def _convolution_cost(x: Tensor, weight: Tensor, bias: Tensor, out_positions: int) -> Cost:
    """Taps that fall on padding count like all others, as they do for every library."""
    out_numel = out_positions * weight.shape[0]
    return Cost(
        flops=2 * out_positions * weight.numel(),
        num_bytes=tensor_bytes(x, weight, bias) + out_numel * x.element_size(),
    )


def _causal_conv3d_cost(
    x_BCTHW: Tensor,
    weight_OIKKK: Tensor,
    bias_O: Tensor,
    stride: tuple[int, int, int],
    front_frames: int,
) -> Cost:
    batch, _, frames, height, width = x_BCTHW.shape
    kernel = weight_OIKKK.shape[-1]
    border = 2 * (kernel // 2) - kernel
    sizes = (frames + front_frames - kernel, height + border, width + border)
    positions = [size // step + 1 for size, step in zip(sizes, stride, strict=True)]
    return _convolution_cost(x_BCTHW, weight_OIKKK, bias_O, batch * math.prod(positions))


def _conv2d_cost(
    x_NCHW: Tensor,
    weight_OIKK: Tensor,
    bias_O: Tensor,
    stride: int,
    padding: tuple[int, int, int, int],
) -> Cost:
    batch, _, height, width = x_NCHW.shape
    kernel = weight_OIKK.shape[-1]
    left, right, top, bottom = padding
    rows = (height + top + bottom - kernel) // stride + 1
    columns = (width + left + right - kernel) // stride + 1
    return _convolution_cost(x_NCHW, weight_OIKK, bias_O, batch * rows * columns)


CAUSAL_CONV3D = OpContract[CausalConv3d](
    name="causal_conv3d", call=CausalConv3d.__call__, cost=_causal_conv3d_cost
)
CONV2D = OpContract[Conv2d](name="conv2d", call=Conv2d.__call__, cost=_conv2d_cost)


class PixelUnshuffleAdd(Protocol):
    """Space-time to depth of a branch, plus the group means of its shortcut."""

    def __call__(self, x_BCTHW: Tensor, skip_BCTHW: Tensor, factor: int) -> Tensor:
        """Move factor^3 neighbours into channels.

        x_BCTHW: [B, C, T, H, W]; skip_BCTHW: [B, C', T, H, W] with C' a multiple of C.
        factor - 1 zero frames are put in front of both; then output channel
        c * f^3 + (i_t * f^2 + i_h * f + i_w) reads input channel c at (t f + i_t, y f + i_h,
        x f + i_w). The unshuffled skip is averaged over groups of C' / C neighbouring channels.

        Returns [B, C f^3, (T + f - 1) / f, H / f, W / f] in x's dtype; float32 inside, rounded
        once.
        """
        ...


class PixelShuffleAdd(Protocol):
    """Depth to space-time of a branch, plus its channel-repeated shortcut."""

    def __call__(self, x_BCTHW: Tensor, skip_BCTHW: Tensor, factor: int) -> Tensor:
        """The inverse of the unshuffle.

        x_BCTHW: [B, C, T, H, W]; skip_BCTHW: [B, C', T, H, W] with C a multiple of C'; each skip
        channel is repeated C / C' times in place (repeat_interleave). The first factor - 1
        frames of the result are dropped.

        Returns [B, C / f^3, T f - (f - 1), H f, W f] in x's dtype; float32 inside, rounded once.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class PixelSite(Site):
    """Traits of a pixel (un)shuffle call place."""

    channels: int
    skip_channels: int
    factor: int


def _pixel_unshuffle_add_cost(x_BCTHW: Tensor, skip_BCTHW: Tensor, factor: int) -> Cost:
    frames = x_BCTHW.shape[2]
    written = tensor_bytes(x_BCTHW) * (frames + factor - 1) // frames
    return Cost(num_bytes=tensor_bytes(x_BCTHW, skip_BCTHW) + written)


def _pixel_shuffle_add_cost(x_BCTHW: Tensor, skip_BCTHW: Tensor, factor: int) -> Cost:
    frames = x_BCTHW.shape[2] * factor
    written = tensor_bytes(x_BCTHW) * (frames - factor + 1) // frames
    return Cost(num_bytes=tensor_bytes(x_BCTHW, skip_BCTHW) + written)


PIXEL_UNSHUFFLE_ADD = OpContract[PixelUnshuffleAdd](
    name="pixel_unshuffle_add", call=PixelUnshuffleAdd.__call__, cost=_pixel_unshuffle_add_cost
)
PIXEL_SHUFFLE_ADD = OpContract[PixelShuffleAdd](
    name="pixel_shuffle_add", call=PixelShuffleAdd.__call__, cost=_pixel_shuffle_add_cost
)
