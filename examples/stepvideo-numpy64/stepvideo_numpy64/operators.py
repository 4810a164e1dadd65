"""The operators, written from their contracts: float64 inside, one rounding out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stepvideo_core.ops import (
    ADALN_MODULATE,
    ATTENTION,
    GATED_RESIDUAL,
    RMS_NORM,
    ROPE_3D,
    AttentionSite,
    OpImpl,
    Site,
)

Array = NDArray[np.float64]


def _in(x: Tensor) -> Array:
    return x.detach().double().numpy()


def _out(x: Array, like: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(x)).to(like.dtype)


def attention(
    q_BSHD: Tensor,
    k_BTGD: Tensor,
    v_BTGD: Tensor,
    scale: float,
    causal: bool,
    key_lengths: tuple[int, ...] | None,
    slopes_H: Tensor | None,
) -> Tensor:
    """Row by row softmax over the keys that each query sees, head by head."""
    q, k, v = _in(q_BSHD), _in(k_BTGD), _in(v_BTGD)
    batch, num_queries, num_heads, _ = q.shape
    num_keys, share = k.shape[1], num_heads // k.shape[2]
    distance = np.arange(num_queries)[:, None] - np.arange(num_keys)[None, :]
    out = np.empty_like(q)
    for sample in range(batch):
        seen = num_keys if key_lengths is None else key_lengths[sample]
        for head in range(num_heads):
            keys, values = k[sample, :seen, head // share], v[sample, :seen, head // share]
            scores = q[sample, :, head] @ keys.T * scale
            if slopes_H is not None:
                bias = np.sqrt(np.maximum(distance[:, :seen], 0))
                scores -= float(slopes_H[head]) * bias
            if causal:
                scores = np.where(distance[:, :seen] < 0, -np.inf, scores)
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            out[sample, :, head] = weights / weights.sum(axis=1, keepdims=True) @ values
    return _out(out, q_BSHD)


def _attention_why_not(site: Site) -> list[str]:
    assert isinstance(site, AttentionSite)
    if site.num_heads % site.num_kv_heads:
        return [f"{site.num_heads} heads do not share {site.num_kv_heads} key heads evenly"]
    return []


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Divide by the root of the mean square, then scale."""
    values = _in(x)
    root = np.sqrt(np.mean(values**2, axis=-1, keepdims=True) + eps)
    return _out(values / root * _in(weight), x)


def rope_3d(x_BSHD: Tensor, cos_SD: Tensor, sin_SD: Tensor, axes: tuple[int, int, int]) -> Tensor:
    """Each pair (k, k + w/2) of a group is a complex number, turned by its angle."""
    x, cos, sin = _in(x_BSHD), _in(cos_SD), _in(sin_SD)
    out = np.empty_like(x)
    first = 0
    for width in axes:
        half = width // 2
        real, imaginary = slice(first, first + half), slice(first + half, first + width)
        turn = (cos[:, real] + 1j * sin[:, real])[None, :, None, :]
        turned = (x[..., real] + 1j * x[..., imaginary]) * turn
        out[..., real], out[..., imaginary] = turned.real, turned.imag
        first += width
    return _out(out, x_BSHD)


def adaln_modulate(
    x_BSD: Tensor,
    weight_D: Tensor | None,
    bias_D: Tensor | None,
    eps: float,
    shift_BD: Tensor,
    scale_BD: Tensor,
) -> Tensor:
    """LayerNorm by NumPy's own variance, then the modulation."""
    x = _in(x_BSD)
    normed = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + eps)
    if weight_D is not None and bias_D is not None:
        normed = normed * _in(weight_D) + _in(bias_D)
    return _out(normed * (1 + _in(scale_BD)[:, None]) + _in(shift_BD)[:, None], x_BSD)


def gated_residual(x_BSD: Tensor, y_BSD: Tensor, gate_BD: Tensor) -> Tensor:
    """x + gate y."""
    return _out(_in(x_BSD) + _in(gate_BD)[:, None] * _in(y_BSD), x_BSD)


IMPLS: tuple[OpImpl[Any], ...] = (
    OpImpl(op=ATTENTION, name="rowwise", fn=attention, why_not=_attention_why_not),
    OpImpl(op=RMS_NORM, name="numpy", fn=rms_norm),
    OpImpl(op=ROPE_3D, name="complex", fn=rope_3d),
    OpImpl(op=ADALN_MODULATE, name="numpy", fn=adaln_modulate),
    OpImpl(op=GATED_RESIDUAL, name="numpy", fn=gated_residual),
)
