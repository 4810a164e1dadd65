"""Normalisation: statistics and products in float32, results in the input's dtype."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stepvideo_virtual_npu.arguments import Arguments


def _rms(x: Tensor, dims: int, epsilon: float) -> tuple[Tensor, Tensor]:
    """The normalised float32 input, and 1/rms with the reduced dimensions kept."""
    wide = x.float()
    axes = tuple(range(-dims, 0))
    rstd = torch.rsqrt(wide.square().mean(dim=axes, keepdim=True) + epsilon)
    return wide * rstd, rstd


def npu_rms_norm(call: Arguments) -> tuple[Tensor, Tensor]:
    normed, rstd = _rms(call.input, call.gamma.dim(), call.epsilon)
    return (normed * call.gamma.float()).to(call.input.dtype), rstd


def npu_gemma_rms_norm(call: Arguments) -> tuple[Tensor, Tensor]:
    normed, rstd = _rms(call.input, call.gamma.dim(), call.epsilon)
    return (normed * (1.0 + call.gamma.float())).to(call.input.dtype), rstd


def npu_add_rms_norm(call: Arguments) -> tuple[Tensor, Tensor, Tensor]:
    total = call.x1 + call.x2
    normed, rstd = _rms(total, call.gamma.dim(), call.epsilon)
    return (normed * call.gamma.float()).to(total.dtype), rstd, total


def npu_layer_norm_eval(call: Arguments) -> Tensor:
    weight, bias = (None if t is None else t.float() for t in (call.weight, call.bias))
    normed = F.layer_norm(call.input.float(), list(call.normalized_shape), weight, bias, call.eps)
    return normed.to(call.input.dtype)


def _layer_norm(
    x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised over gamma's dimensions, float32; mean and 1/deviation with them kept."""
    axes = tuple(range(-gamma.dim(), 0))
    mean = x.mean(dim=axes, keepdim=True)
    rstd = torch.rsqrt(x.var(dim=axes, unbiased=False, keepdim=True) + epsilon)
    return (x - mean) * rstd * gamma.float() + beta.float(), mean, rstd


def npu_add_layer_norm(call: Arguments) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    total = call.x1.float() + call.x2.float()
    y, mean, rstd = _layer_norm(total, call.gamma, call.beta, call.epsilon)
    dtype = call.x1.dtype
    return y.to(dtype), mean, rstd, total.to(dtype)


def npu_deep_norm(call: Arguments) -> tuple[Tensor, Tensor, Tensor]:
    total = call.alpha * call.x.float() + call.gx.float()
    y, mean, rstd = _layer_norm(total, call.gamma, call.beta, call.epsilon)
    return mean, rstd, y.to(call.x.dtype)


def _group_norm(
    x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The normalised float32 input; mean and 1/deviation of each sample and group."""
    wide = x.float()
    weight, bias = (None if t is None else t.float() for t in (weight, bias))
    rows = wide.reshape(x.shape[0], groups, -1)
    rstd = torch.rsqrt(rows.var(dim=-1, unbiased=False) + eps)
    return F.group_norm(wide, groups, weight, bias, eps), rows.mean(dim=-1), rstd


def npu_group_norm_silu(call: Arguments) -> tuple[Tensor, Tensor, Tensor]:
    x = call.input
    y, mean, rstd = _group_norm(x, call.group, call.weight, call.bias, call.eps)
    # The vendor's shape function says so; on A2 and A3 its kernel has the input's dtype.
    statistics = x.dtype if call.weight is None else call.weight.dtype
    return F.silu(y).to(x.dtype), mean.to(statistics), rstd.to(statistics)


def npu_group_norm_swish(call: Arguments) -> tuple[Tensor, Tensor, Tensor]:
    x = call.input
    y, mean, rstd = _group_norm(x, call.num_groups, call.weight, call.bias, call.eps)
    swished = y * torch.sigmoid(call.swish_scale * y)
    return swished.to(x.dtype), mean.to(x.dtype), rstd.to(x.dtype)
