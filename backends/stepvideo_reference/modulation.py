"""AdaLN modulation, gated residual and tanh GELU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stepvideo_core.ops import ADALN_MODULATE, GATED_RESIDUAL, GELU_TANH, OpImpl
from stepvideo_reference.precision import wide

_CACHED_ELEMENTS = 1 << 18  # 1 MiB in float32


def eager_adaln_modulate(
    x_BSD: Tensor,
    weight_D: Tensor | None,
    bias_D: Tensor | None,
    eps: float,
    shift_BD: Tensor,
    scale_BD: Tensor,
) -> Tensor:
    """The meaning of the operator: explicit two-pass statistics."""
    x = wide(x_BSD)
    centred = x - x.mean(dim=-1, keepdim=True)
    normed = centred * torch.rsqrt(centred.square().mean(dim=-1, keepdim=True) + eps)
    if weight_D is not None and bias_D is not None:
        normed = normed * wide(weight_D) + wide(bias_D)
    out = normed * (1 + wide(scale_BD)[:, None]) + wide(shift_BD)[:, None]
    return out.to(x_BSD.dtype)


def rowwise_adaln_modulate(
    x_BSD: Tensor,
    weight_D: Tensor | None,
    bias_D: Tensor | None,
    eps: float,
    shift_BD: Tensor,
    scale_BD: Tensor,
) -> Tensor:
    """torch's LayerNorm kernel on as many tokens at a time as stay in the cache."""
    batch, tokens, dim = x_BSD.shape
    weight = None if weight_D is None else wide(weight_D)
    bias = None if bias_D is None else wide(bias_D)
    factor_B1D, shift_B1D = 1 + wide(scale_BD)[:, None], wide(shift_BD)[:, None]
    out_BSD = torch.empty_like(x_BSD, memory_format=torch.contiguous_format)
    rows = max(1, _CACHED_ELEMENTS // (batch * dim))
    for first in range(0, tokens, rows):
        part = wide(x_BSD[:, first : first + rows])
        normed = F.layer_norm(part, (dim,), weight, bias, eps)
        out_BSD[:, first : first + rows] = normed.mul_(factor_B1D).add_(shift_B1D)
    return out_BSD


def eager_gated_residual(x_BSD: Tensor, y_BSD: Tensor, gate_BD: Tensor) -> Tensor:
    """The meaning of the operator."""
    return torch.addcmul(wide(x_BSD), wide(y_BSD), wide(gate_BD)[:, None]).to(x_BSD.dtype)


def eager_gelu_tanh(x: Tensor) -> Tensor:
    """torch's own, which computes half precision in float32."""
    return F.gelu(x, approximate="tanh")


IMPLS = (
    OpImpl(op=ADALN_MODULATE, name="eager", fn=eager_adaln_modulate),
    OpImpl(op=ADALN_MODULATE, name="rowwise", fn=rowwise_adaln_modulate, rank=10),
    OpImpl(op=GATED_RESIDUAL, name="eager", fn=eager_gated_residual),
    OpImpl(op=GELU_TANH, name="eager", fn=eager_gelu_tanh),
)
