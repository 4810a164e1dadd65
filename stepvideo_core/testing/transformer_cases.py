"""Cases of the operators in the transformer and the text encoder, at small and odd sizes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from stepvideo_core.models.embeddings import rope_tables
from stepvideo_core.models.step_llm import sqrt_alibi_slopes
from stepvideo_core.ops import (
    ADALN_MODULATE,
    ATTENTION,
    GATED_RESIDUAL,
    GELU_TANH,
    LINEAR,
    QK_NORM_ROPE,
    RMS_NORM,
    ROPE_3D,
    AttentionSite,
    LinearSite,
    ModulationSite,
    RMSNormSite,
    RopeSite,
)
from stepvideo_core.testing.case import Case, Inputs, strided


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


TRANSFORMER_CASES: tuple[Case, ...] = (
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
)
