"""Inputs for every operator: the model's sites at small and odd sizes, and what usually breaks.

A case makes its inputs in float64 from a seed; the suite casts them to the dtype under test, so
that every implementation, device and dtype sees the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from stepvideo_core.models.embeddings import rope_tables
from stepvideo_core.models.step_llm import sqrt_alibi_slopes
from stepvideo_core.ops import (
    ADALN_MODULATE,
    ATTENTION,
    CAUSAL_CONV3D,
    CONV2D,
    GATED_RESIDUAL,
    GELU_TANH,
    GROUP_NORM_SILU,
    LINEAR,
    PIXEL_SHUFFLE_ADD,
    PIXEL_UNSHUFFLE_ADD,
    QK_NORM_ROPE,
    RMS_NORM,
    ROPE_3D,
    AttentionSite,
    ConvSite,
    GroupNormSite,
    LinearSite,
    ModulationSite,
    OpContract,
    PixelSite,
    RMSNormSite,
    RopeSite,
    Site,
)


class Inputs:
    """Random float64 tensors from a seed."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, scale: float = 1.0, mean: float = 0.0) -> Tensor:
        noise = torch.randn(shape, generator=self._generator, dtype=torch.float64)
        return noise * scale + mean


@dataclass(frozen=True, kw_only=True)
class Case:
    """One set of arguments for one operator at one site.

    make: builds the arguments; tensors are float64 on the CPU. keep_wide: indices of tensor
    arguments that the contract wants in float32 (float64 for float64) whatever the dtype.
    layout: applied to every activation after casting, to test strides. poisoned: index of a tensor
    argument whose first element becomes NaN, which no implementation may hide.
    """

    name: str
    op: OpContract[Any]
    site: Site
    make: Callable[[Inputs], tuple[Any, ...]]
    keep_wide: frozenset[int] = frozenset()
    layout: Callable[[Tensor], Tensor] = field(default=lambda tensor: tensor)
    poisoned: int | None = None
    seed: int = 0

    @property
    def id(self) -> str:
        return f"{self.op.name}-{self.site.name}-{self.name}"

    def arguments(self, dtype: torch.dtype, device: torch.device) -> tuple[Any, ...]:
        """The arguments in a dtype on a device."""
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        result = []
        for index, value in enumerate(self.make(Inputs(self.seed))):
            if isinstance(value, Tensor):
                value = value.to(wide if index in self.keep_wide else dtype).to(device)
                if value.dim() > 1 and index not in self.keep_wide:
                    value = self.layout(value)
                if index == self.poisoned:
                    value.view(-1)[0] = math.nan
            result.append(value)
        return tuple(result)


def strided(tensor: Tensor) -> Tensor:
    """The same values with gaps between them: every second element of a larger buffer."""
    buffer = tensor.new_full((*tensor.shape[:-1], 2 * tensor.shape[-1]), math.nan)
    buffer[..., ::2] = tensor
    return buffer[..., ::2]


def channels_last(tensor: Tensor) -> Tensor:
    """The same values with channels innermost in memory."""
    if tensor.dim() == 5:
        return tensor.contiguous(memory_format=torch.channels_last_3d)
    if tensor.dim() == 4:
        return tensor.contiguous(memory_format=torch.channels_last)
    return tensor


def _attention(
    name: str,
    site: AttentionSite,
    *,
    batch: int = 1,
    queries: int,
    keys: int | None = None,
    lengths: tuple[int, ...] | None = None,
    scale: float = 1.0,
    **options: Any,
) -> Case:
    keys = queries if keys is None else keys

    def make(inputs: Inputs) -> tuple[Any, ...]:
        q = inputs.normal(batch, queries, site.num_heads, site.head_dim, scale=scale)
        k = inputs.normal(batch, keys, site.num_kv_heads, site.head_dim, scale=scale)
        v = inputs.normal(batch, keys, site.num_kv_heads, site.head_dim, scale=scale, mean=0.5)
        slopes = sqrt_alibi_slopes(site.num_heads).double() if site.sqrt_bias else None
        return q, k, v, site.head_dim**-0.5, site.causal, lengths, slopes

    return Case(name=name, op=ATTENTION, site=site, make=make, keep_wide=frozenset({6}), **options)


_SELF = AttentionSite(name="dit.self", num_heads=3, num_kv_heads=3, head_dim=128)
_CROSS = AttentionSite(
    name="dit.cross", num_heads=3, num_kv_heads=3, head_dim=128, key_lengths=True
)
_MID = AttentionSite(name="vae.mid", num_heads=1, num_kv_heads=1, head_dim=512, causal=True)
_LLM = AttentionSite(
    name="step_llm.self", num_heads=6, num_kv_heads=2, head_dim=128, causal=True, sqrt_bias=True
)

_ATTENTION_CASES = (
    _attention("even", _SELF, queries=128),
    _attention("odd", _SELF, batch=2, queries=77),
    _attention("one_token", _SELF, queries=1),
    _attention("large_logits", _SELF, queries=65, scale=12.0),
    _attention("strided", _SELF, queries=50, layout=strided),
    _attention("nan_query", _SELF, queries=40, poisoned=0),
    _attention("nan_key", _SELF, queries=40, poisoned=1),
    _attention("all_keys", _CROSS, queries=60, keys=97),
    _attention("same_lengths", _CROSS, batch=2, queries=33, keys=80, lengths=(41, 41)),
    _attention("ragged", _CROSS, batch=3, queries=33, keys=80, lengths=(80, 1, 37)),
    _attention("few_keys", _CROSS, queries=130, keys=3),
    _attention("odd", _MID, queries=91),
    _attention("chunk", _MID, batch=2, queries=160),
    _attention("odd", _LLM, queries=71),
    _attention("long", _LLM, batch=2, queries=320),
)


def _linear(
    name: str, shape: tuple[int, ...], out_features: int, *, bias: bool = False, **options: Any
) -> Case:
    in_features = shape[-1]

    def make(inputs: Inputs) -> tuple[Any, ...]:
        weight = inputs.normal(out_features, in_features, scale=in_features**-0.5)
        return inputs.normal(*shape), weight, inputs.normal(out_features) if bias else None

    site = LinearSite(
        name="dit.self", in_features=in_features, out_features=out_features, bias=bias
    )
    return Case(name=name, op=LINEAR, site=site, make=make, **options)


def _rms_norm(name: str, width: int, *shape: int, scale: float = 1.0, **options: Any) -> Case:
    def make(inputs: Inputs) -> tuple[Any, ...]:
        weight = inputs.normal(width, scale=0.3, mean=1.0)
        return inputs.normal(*shape, width, scale=scale), weight, 1e-6

    site = RMSNormSite(name="dit.cross" if width == 128 else "step_llm.norm", width=width)
    return Case(name=name, op=RMS_NORM, site=site, make=make, **options)


_AXES = (64, 32, 32)
_ROPE = RopeSite(name="dit.self", num_heads=3, head_dim=128, axes=_AXES)


def _tables(grid: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    tables = rope_tables(grid, _AXES, dtype=torch.float64, device=torch.device("cpu"))
    return tables.cos_SD, tables.sin_SD


def _rope(name: str, grid: tuple[int, int, int], *, batch: int = 1, **options: Any) -> Case:
    def make(inputs: Inputs) -> tuple[Any, ...]:
        x = inputs.normal(batch, math.prod(grid), 3, 128)
        return x, *_tables(grid), _AXES

    return Case(
        name=name, op=ROPE_3D, site=_ROPE, make=make, keep_wide=frozenset({1, 2}), **options
    )


def _qk_norm_rope(
    name: str, grid: tuple[int, int, int], *, batch: int = 1, scale: float = 1.0, **options: Any
) -> Case:
    def make(inputs: Inputs) -> tuple[Any, ...]:
        qkv = inputs.normal(batch, math.prod(grid), 3, 3 * 128, scale=scale)
        weights = (inputs.normal(128, scale=0.3, mean=1.0) for _ in range(2))
        return qkv, *weights, 1e-6, *_tables(grid), _AXES

    return Case(
        name=name, op=QK_NORM_ROPE, site=_ROPE, make=make, keep_wide=frozenset({4, 5}), **options
    )


def _modulate(
    name: str,
    shape: tuple[int, int, int],
    *,
    affine: bool,
    scale: float = 1.0,
    mean: float = 0.0,
    **options: Any,
) -> Case:
    batch, _, width = shape

    def make(inputs: Inputs) -> tuple[Any, ...]:
        x = inputs.normal(*shape, scale=scale, mean=mean)
        weight = inputs.normal(width, scale=0.3, mean=1.0) if affine else None
        bias = inputs.normal(width, scale=0.3) if affine else None
        shift, factor = (inputs.normal(batch, width, scale=0.5) for _ in range(2))
        return x, weight, bias, 1e-5, shift, factor

    site = ModulationSite(name="dit.block" if affine else "dit.out", width=width, affine=affine)
    return Case(name=name, op=ADALN_MODULATE, site=site, make=make, **options)


def _gated(name: str, shape: tuple[int, int, int], **options: Any) -> Case:
    def make(inputs: Inputs) -> tuple[Any, ...]:
        return (
            inputs.normal(*shape),
            inputs.normal(*shape),
            inputs.normal(shape[0], shape[2], scale=0.5),
        )

    site = ModulationSite(name="dit.block", width=shape[2], affine=True)
    return Case(name=name, op=GATED_RESIDUAL, site=site, make=make, **options)


def _gelu(name: str, shape: tuple[int, ...], scale: float = 2.0, **options: Any) -> Case:
    site = ModulationSite(name="dit.ffn", width=shape[-1])
    return Case(
        name=name,
        op=GELU_TANH,
        site=site,
        make=lambda inputs: (inputs.normal(*shape, scale=scale),),
        **options,
    )


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


CASES: tuple[Case, ...] = (
    _linear("tokens", (2, 37, 256), 384),
    _linear("bias", (2, 37, 256), 96, bias=True),
    _linear("one_row", (1, 64), 48),
    _linear("odd", (3, 7, 101), 33),
    _linear("long_sums", (5, 4096), 64),
    _linear("strided", (2, 9, 128), 64, layout=strided),
    _linear("nan", (2, 9, 128), 64, poisoned=0),
    *_ATTENTION_CASES,
    _rms_norm("heads", 128, 2, 37, 3),
    _rms_norm("one_row", 128, 1),
    _rms_norm("wide", 6144, 5),
    _rms_norm("odd_width", 100, 7, 3),
    _rms_norm("large", 128, 33, scale=300.0),
    _rms_norm("tiny_values", 128, 33, scale=1e-4),
    _rms_norm("strided", 128, 9, 5, layout=strided),
    _rms_norm("nan", 128, 9, 5, poisoned=0),
    _rope("cube", (3, 4, 5)),
    _rope("far", (36, 2, 3), batch=2),
    _rope("one_token", (1, 1, 1)),
    _rope("strided", (2, 3, 3), layout=strided),
    _qk_norm_rope("cube", (3, 4, 5)),
    _qk_norm_rope("odd", (5, 3, 7), batch=2),
    _qk_norm_rope("large", (2, 3, 3), scale=200.0),
    _qk_norm_rope("strided", (2, 3, 3), layout=strided),
    _modulate("affine", (2, 37, 256), affine=True),
    _modulate("plain", (2, 37, 256), affine=False),
    _modulate("official_width", (1, 5, 6144), affine=True),
    _modulate("odd_width", (3, 7, 100), affine=True),
    _modulate("offset", (2, 9, 256), affine=True, mean=30.0),
    _modulate("nan", (2, 9, 256), affine=True, poisoned=0),
    _modulate("strided", (2, 9, 256), affine=False, layout=strided),
    _gated("even", (2, 37, 256)),
    _gated("odd_width", (3, 7, 101)),
    _gated("strided", (2, 9, 256), layout=strided),
    _gelu("even", (2, 37, 512)),
    _gelu("odd", (3, 101)),
    _gelu("large", (64, 33), scale=40.0),
    _gelu("strided", (9, 256), layout=strided),
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
