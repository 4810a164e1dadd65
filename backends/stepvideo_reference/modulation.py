"""AdaLN modulation, gated residual and tanh GELU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stepvideo_core.ops import ADALN_MODULATE, GATED_RESIDUAL, GELU_TANH, OpImpl, Site
from stepvideo_reference.precision import wide


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


def native_adaln_modulate(
    x_BSD: Tensor,
    weight_D: Tensor | None,
    bias_D: Tensor | None,
    eps: float,
    shift_BD: Tensor,
    scale_BD: Tensor,
) -> Tensor:
    """torch's LayerNorm kernel, then one fused multiply-add in place."""
    normed = F.layer_norm(x_BSD, x_BSD.shape[-1:], weight_D, bias_D, eps)
    return normed.mul_(1 + scale_BD[:, None]).add_(shift_BD[:, None])


def _native_why_not(site: Site) -> list[str]:
    if site.dtype in (torch.bfloat16, torch.float16):
        name = str(site.dtype).removeprefix("torch.")
        return [f"it rounds to {name} between the norm and the modulation"]
    return []


def eager_gated_residual(x_BSD: Tensor, y_BSD: Tensor, gate_BD: Tensor) -> Tensor:
    """The meaning of the operator."""
    return torch.addcmul(wide(x_BSD), wide(y_BSD), wide(gate_BD)[:, None]).to(x_BSD.dtype)


def eager_gelu_tanh(x: Tensor) -> Tensor:
    """torch's own, which computes half precision in float32."""
    return F.gelu(x, approximate="tanh")


IMPLS = (
    OpImpl(op=ADALN_MODULATE, name="eager", fn=eager_adaln_modulate),
    OpImpl(
        op=ADALN_MODULATE,
        name="native",
        fn=native_adaln_modulate,
        rank=10,
        why_not=_native_why_not,
    ),
    OpImpl(op=GATED_RESIDUAL, name="eager", fn=eager_gated_residual),
    OpImpl(op=GELU_TANH, name="eager", fn=eager_gelu_tanh),
)
