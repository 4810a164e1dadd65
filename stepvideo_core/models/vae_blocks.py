"""Layers of the Video-VAE. Activations are [B, C, T, H, W] in any memory format.

Module and parameter names are those of the checkpoint. A convolution's weights lie in a child
called `conv`, because the training code wrapped every causal convolution.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from stepvideo_core.dispatch.plan import DispatchPlan
from stepvideo_core.ops import (
    ATTENTION,
    CAUSAL_CONV3D,
    CONV2D,
    GROUP_NORM_SILU,
    PIXEL_SHUFFLE_ADD,
    PIXEL_UNSHUFFLE_ADD,
    AttentionSite,
    ConvSite,
    GroupNormSite,
    PixelSite,
)

_NUM_GROUPS = 32
_NORM_EPS = 1e-5


class CausalConv3d(nn.Module):
    """3-D convolution that is padded with zero frames in front only."""

    def __init__(
        self,
        plan: DispatchPlan,
        site: str,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int = 3,
        stride: tuple[int, int, int] = (1, 1, 1),
    ) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, kernel)
        self.stride, self.front_frames = stride, kernel - 1
        self.convolve = plan.bind(
            CAUSAL_CONV3D,
            ConvSite(
                name=site,
                in_channels=in_channels,
                out_channels=out_channels,
                kernel=kernel,
                stride=stride,
            ),
        )

    def forward(self, x_BCTHW: Tensor, *, written_frames: int = 0) -> Tensor:
        """written_frames: zero frames that the layer before has already put in front."""
        assert self.conv.bias is not None
        return self.convolve(
            x_BCTHW,
            self.conv.weight,
            self.conv.bias,
            self.stride,
            self.front_frames - written_frames,
        )


class GroupNorm(nn.Module):
    """GroupNorm over 32 groups, with SiLU and front frames as the caller asks."""

    def __init__(
        self, plan: DispatchPlan, site: str, channels: int, *, per_frame: bool, silu: bool
    ) -> None:
        super().__init__()
        holder = nn.GroupNorm(_NUM_GROUPS, channels)
        self.weight, self.bias = holder.weight, holder.bias
        self.per_frame, self.silu = per_frame, silu
        self.group_norm = plan.bind(
            GROUP_NORM_SILU,
            GroupNormSite(
                name=site,
                channels=channels,
                num_groups=_NUM_GROUPS,
                per_frame=per_frame,
                silu=silu,
            ),
        )

    def forward(self, x_BCTHW: Tensor, *, front_frames: int = 0) -> Tensor:
        return self.group_norm(
            x_BCTHW,
            self.weight,
            self.bias,
            _NUM_GROUPS,
            _NORM_EPS,
            self.per_frame,
            self.silu,
            front_frames,
        )


class ResnetBlock(nn.Module):
    """GN, SiLU, conv, twice, plus the input (through a 1x1x1 convolution if the width changes)."""

    def __init__(
        self,
        plan: DispatchPlan,
        site: str,
        in_channels: int,
        out_channels: int,
        *,
        per_frame: bool,
    ) -> None:
        super().__init__()
        self.norm1 = GroupNorm(plan, site, in_channels, per_frame=per_frame, silu=True)
        self.conv1 = CausalConv3d(plan, site, in_channels, out_channels)
        self.norm2 = GroupNorm(plan, site, out_channels, per_frame=per_frame, silu=True)
        self.conv2 = CausalConv3d(plan, site, out_channels, out_channels)
        if in_channels != out_channels:
            self.nin_shortcut = CausalConv3d(plan, site, in_channels, out_channels, kernel=1)
        self.widens = in_channels != out_channels

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        h = self.conv1(self.norm1(x_BCTHW, front_frames=2), written_frames=2)
        h = self.conv2(self.norm2(h, front_frames=2), written_frames=2)
        return h.add_(self.nin_shortcut(x_BCTHW) if self.widens else x_BCTHW)


class MidAttention(nn.Module):
    """Single-head attention over the chunk's positions, causal in (t, h, w) raster order.

    Causality is per position, not per frame: a pixel does not see the next one of its own row.
    """

    def __init__(self, plan: DispatchPlan, channels: int, *, per_frame: bool) -> None:
        super().__init__()
        site = "vae.mid"
        self.norm = GroupNorm(plan, site, channels, per_frame=per_frame, silu=False)
        self.q = CausalConv3d(plan, site, channels, channels, kernel=1)
        self.k = CausalConv3d(plan, site, channels, channels, kernel=1)
        self.v = CausalConv3d(plan, site, channels, channels, kernel=1)
        self.proj_out = CausalConv3d(plan, site, channels, channels, kernel=1)
        self.scale = channels**-0.5
        self.attend = plan.bind(
            ATTENTION,
            AttentionSite(name=site, num_heads=1, num_kv_heads=1, head_dim=channels, causal=True),
        )

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        normed = self.norm(x_BCTHW)
        q, k, v = (_to_tokens(layer(normed)) for layer in (self.q, self.k, self.v))
        out_BS1C = self.attend(q, k, v, self.scale, True, None, None)
        out_BCTHW = out_BS1C.squeeze(2).transpose(1, 2).reshape(x_BCTHW.shape)
        return x_BCTHW + self.proj_out(out_BCTHW)


def _to_tokens(x_BCTHW: Tensor) -> Tensor:
    return x_BCTHW.flatten(2).transpose(1, 2).unsqueeze(2)


def _frames_as_batch(x_BCTHW: Tensor) -> Tensor:
    return x_BCTHW.transpose(1, 2).flatten(0, 1)


def _batch_as_frames(x_NCHW: Tensor, batch: int) -> Tensor:
    return x_NCHW.unflatten(0, (batch, -1)).transpose(1, 2)


class _FrameConv(nn.Module):
    """A 2-D convolution applied to every frame."""

    def __init__(
        self,
        plan: DispatchPlan,
        site: str,
        channels: int,
        *,
        stride: int,
        padding: tuple[int, int, int, int],
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3)
        self.stride, self.padding = stride, padding
        self.convolve = plan.bind(
            CONV2D,
            ConvSite(
                name=site,
                in_channels=channels,
                out_channels=channels,
                kernel=3,
                stride=(stride, stride),
            ),
        )

    def _apply_conv(self, x_NCHW: Tensor) -> Tensor:
        assert self.conv.bias is not None
        return self.convolve(x_NCHW, self.conv.weight, self.conv.bias, self.stride, self.padding)


class Downsample2d(_FrameConv):
    """Halves rows and columns; zeros only at the right and the bottom."""

    def __init__(self, plan: DispatchPlan, site: str, channels: int) -> None:
        super().__init__(plan, site, channels, stride=2, padding=(0, 1, 0, 1))

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        return _batch_as_frames(self._apply_conv(_frames_as_batch(x_BCTHW)), x_BCTHW.shape[0])


class Upsample2d(_FrameConv):
    """Doubles rows and columns (nearest), then convolves."""

    def __init__(self, plan: DispatchPlan, site: str, channels: int) -> None:
        super().__init__(plan, site, channels, stride=1, padding=(1, 1, 1, 1))

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        frames = _frames_as_batch(x_BCTHW)
        height, width = frames.shape[2:]
        frames = F.interpolate(frames, size=(2 * height, 2 * width), mode="nearest")
        return _batch_as_frames(self._apply_conv(frames), x_BCTHW.shape[0])


class Downsample3d(nn.Module):
    """Halves time, rows and columns with one causal convolution."""

    def __init__(self, plan: DispatchPlan, site: str, channels: int) -> None:
        super().__init__()
        self.conv = CausalConv3d(plan, site, channels, channels, stride=(2, 2, 2))

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        return self.conv(x_BCTHW)


class _UpsampleUnit(nn.Module):
    """conv, GN, SiLU, conv, GN, then SiLU(. + x) + x: the input is added twice."""

    def __init__(self, plan: DispatchPlan, site: str, channels: int, *, per_frame: bool) -> None:
        super().__init__()
        self.conv1 = CausalConv3d(plan, site, channels, channels)
        self.norm1 = GroupNorm(plan, site, channels, per_frame=per_frame, silu=True)
        self.conv2 = CausalConv3d(plan, site, channels, channels)
        self.norm2 = GroupNorm(plan, site, channels, per_frame=per_frame, silu=False)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        h = self.norm1(self.conv1(x_BCTHW), front_frames=2)
        h = self.norm2(self.conv2(h, written_frames=2))
        return F.silu(h.add_(x_BCTHW), inplace=True).add_(x_BCTHW)


class Upsample3d(nn.Module):
    """Doubles time, rows and columns (nearest), then a residual unit."""

    def __init__(self, plan: DispatchPlan, site: str, channels: int, *, per_frame: bool) -> None:
        super().__init__()
        self.conv3d = _UpsampleUnit(plan, site, channels, per_frame=per_frame)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        frames, height, width = x_BCTHW.shape[2:]
        size = (2 * frames, 2 * height, 2 * width)
        return self.conv3d(F.interpolate(x_BCTHW, size=size, mode="nearest"))


class _Nested(nn.Module):
    """Only there so that the checkpoint key reads `conv_patchify.conv.conv.weight`."""

    def __init__(self, conv: CausalConv3d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        return self.conv(x_BCTHW)


class Patchify(_Nested):
    """Causal convolution and its shortcut, both moved from 2x2x2 pixels into channels."""

    def __init__(self, plan: DispatchPlan, site: str, in_channels: int, out_channels: int) -> None:
        inner = out_channels // 8
        super().__init__(CausalConv3d(plan, site, in_channels, inner))
        self.unshuffle_add = plan.bind(
            PIXEL_UNSHUFFLE_ADD,
            PixelSite(name=site, channels=inner, skip_channels=in_channels, factor=2),
        )

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        return self.unshuffle_add(self.conv(x_BCTHW), x_BCTHW, 2)


class Unpatchify(_Nested):
    """Causal convolution and its shortcut, both moved from channels into 2x2x2 pixels."""

    def __init__(self, plan: DispatchPlan, site: str, in_channels: int, out_channels: int) -> None:
        inner = out_channels * 8
        super().__init__(CausalConv3d(plan, site, in_channels, inner))
        self.shuffle_add = plan.bind(
            PIXEL_SHUFFLE_ADD,
            PixelSite(name=site, channels=inner, skip_channels=in_channels, factor=2),
        )

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        return self.shuffle_add(self.conv(x_BCTHW), x_BCTHW, 2)
