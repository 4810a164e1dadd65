"""Cases of the operators in the video autoencoder, at small and odd sizes."""

from __future__ import annotations

from typing import Any

from stepvideo_core.ops import (
    CAUSAL_CONV3D,
    CONV2D,
    GROUP_NORM_SILU,
    PIXEL_SHUFFLE_ADD,
    PIXEL_UNSHUFFLE_ADD,
    ConvSite,
    GroupNormSite,
    OpContract,
    PixelSite,
)
from stepvideo_core.testing.case import Case, Inputs, channels_last


def _group_norm(
    name: str,
    shape: tuple[int, int, int, int, int],
    *,
    per_frame: bool = True,
    silu: bool = True,
    front: int = 0,
    mean: float = 0.0,
    scale: float = 1.0,
    **options: Any,
) -> Case:
    channels = shape[1]

    def make(inputs: Inputs) -> tuple[Any, ...]:
        x = inputs.normal(*shape, scale=scale, mean=mean)
        weight, bias = inputs.normal(channels, mean=1.0), inputs.normal(channels)
        return x, weight, bias, 32, 1e-5, per_frame, silu, front

    site = GroupNormSite(
        name="vae.decoder", channels=channels, num_groups=32, per_frame=per_frame, silu=silu
    )
    return Case(name=name, op=GROUP_NORM_SILU, site=site, make=make, **options)


def _conv3d(
    name: str,
    shape: tuple[int, int, int, int, int],
    out_channels: int,
    *,
    kernel: int = 3,
    stride: tuple[int, int, int] = (1, 1, 1),
    front: int = 2,
    **options: Any,
) -> Case:
    in_channels = shape[1]

    def make(inputs: Inputs) -> tuple[Any, ...]:
        fan_in = in_channels * kernel**3
        weight = inputs.normal(
            out_channels, in_channels, kernel, kernel, kernel, scale=fan_in**-0.5
        )
        return inputs.normal(*shape), weight, inputs.normal(out_channels), stride, front

    site = ConvSite(
        name="vae.decoder",
        in_channels=in_channels,
        out_channels=out_channels,
        kernel=kernel,
        stride=stride,
    )
    return Case(name=name, op=CAUSAL_CONV3D, site=site, make=make, **options)


def _conv2d(
    name: str,
    shape: tuple[int, int, int, int],
    *,
    stride: int,
    padding: tuple[int, int, int, int],
    **options: Any,
) -> Case:
    channels = shape[1]

    def make(inputs: Inputs) -> tuple[Any, ...]:
        weight = inputs.normal(channels, channels, 3, 3, scale=(9 * channels) ** -0.5)
        return inputs.normal(*shape), weight, inputs.normal(channels), stride, padding

    site = ConvSite(
        name="vae.encoder" if stride == 2 else "vae.decoder",
        in_channels=channels,
        out_channels=channels,
        kernel=3,
        stride=(stride, stride),
    )
    return Case(name=name, op=CONV2D, site=site, make=make, **options)


def _pixels(
    name: str,
    op: OpContract[Any],
    shape: tuple[int, int, int, int, int],
    skip_channels: int,
    factor: int,
    **options: Any,
) -> Case:
    def make(inputs: Inputs) -> tuple[Any, ...]:
        batch, _, *rest = shape
        return inputs.normal(*shape), inputs.normal(batch, skip_channels, *rest), factor

    place = "vae.encoder" if op is PIXEL_UNSHUFFLE_ADD else "vae.decoder"
    site = PixelSite(name=place, channels=shape[1], skip_channels=skip_channels, factor=factor)
    return Case(name=name, op=op, site=site, make=make, **options)


VAE_CASES: tuple[Case, ...] = (
    _group_norm("per_frame", (1, 64, 3, 5, 7)),
    _group_norm("front_frames", (2, 96, 4, 6, 5), front=2),
    _group_norm("plain", (1, 64, 3, 5, 7), silu=False),
    _group_norm("volume", (2, 64, 3, 5, 7), per_frame=False, front=2),
    _group_norm("one_channel_groups", (1, 32, 2, 9, 4)),
    _group_norm("offset", (1, 64, 2, 8, 8), mean=20.0),
    _group_norm("wide_offset", (1, 64, 2, 40, 40), mean=100.0, scale=0.5),
    _group_norm("nan", (1, 64, 3, 5, 7), poisoned=0),
    _group_norm("channels_last", (1, 64, 3, 6, 7), front=2, layout=channels_last),
    _conv3d("same", (1, 24, 3, 6, 5), 40),
    _conv3d("frames_written", (2, 16, 5, 5, 7), 16, front=0),
    _conv3d("pointwise", (1, 24, 3, 6, 5), 48, kernel=1, front=0),
    _conv3d("stride", (1, 16, 5, 8, 6), 16, stride=(2, 2, 2)),
    _conv3d("rgb_in", (1, 3, 3, 8, 8), 32),
    _conv3d("rgb_out", (1, 32, 4, 8, 8), 3),
    _conv3d("one_frame", (1, 16, 1, 4, 4), 16),
    _conv3d("nan", (1, 16, 3, 5, 4), 16, poisoned=0),
    _conv3d("channels_last", (1, 32, 4, 6, 6), 32, layout=channels_last),
    _conv2d("down", (3, 24, 8, 6), stride=2, padding=(0, 1, 0, 1)),
    _conv2d("up", (2, 24, 9, 7), stride=1, padding=(1, 1, 1, 1)),
    _conv2d("channels_last", (2, 32, 8, 8), stride=1, padding=(1, 1, 1, 1), layout=channels_last),
    _pixels("patchify", PIXEL_UNSHUFFLE_ADD, (1, 16, 5, 6, 4), 32, 2),
    _pixels("one_frame", PIXEL_UNSHUFFLE_ADD, (2, 16, 1, 4, 4), 64, 2),
    _pixels("channels", PIXEL_UNSHUFFLE_ADD, (1, 8, 3, 3, 5), 128, 1),
    _pixels("unpatchify", PIXEL_SHUFFLE_ADD, (1, 256, 3, 4, 3), 128, 2),
    _pixels("one_frame", PIXEL_SHUFFLE_ADD, (2, 64, 1, 3, 5), 16, 2),
    _pixels("channels", PIXEL_SHUFFLE_ADD, (1, 128, 3, 3, 5), 4, 1),
    _pixels("channels_last", PIXEL_SHUFFLE_ADD, (1, 256, 3, 4, 4), 64, 2, layout=channels_last),
)
