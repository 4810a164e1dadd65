"""AdaLN modulation, gated residual and tanh GELU.

torch_npu has no operator for the first two. They are one native LayerNorm and one addcmul here, in
float32 as the contract asks, on as many tokens at a time as keep the float32 copies small.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stepvideo_ascend.toolbox import Toolbox
from stepvideo_core.ops import ADALN_MODULATE, GATED_RESIDUAL, GELU_TANH, OpImpl, Site

# Elements of one float32 copy: 128 MiB, where a launch is long done before the next is queued, and
# little beside the activations (466 million elements at the official size).
_CHUNK_ELEMENTS = 1 << 25


def _token_slices(x_BSD: Tensor) -> Iterator[slice]:
    batch, tokens, width = x_BSD.shape
    rows = max(1, _CHUNK_ELEMENTS // (batch * width))
    for first in range(0, tokens, rows):
        yield slice(first, min(first + rows, tokens))


def native_adaln_modulate(
    x_BSD: Tensor,
    weight_D: Tensor | None,
    bias_D: Tensor | None,
    eps: float,
    shift_BD: Tensor,
    scale_BD: Tensor,
) -> Tensor:
    """LayerNorm without parameters, then addcmul with the norm's and the sample's own.

    (n w + b) (1 + scale) + shift is n f + s with f = w (1 + scale) and s = b (1 + scale) + shift,
    one row per sample each. npu_layer_norm_eval takes a weight of any shape and uses the first
    sample's row for all; it is not used.
    """
    factor_BD, offset_BD = 1 + scale_BD.float(), shift_BD.float()
    if weight_D is not None and bias_D is not None:
        offset_BD = offset_BD + bias_D.float() * factor_BD
        factor_BD = factor_BD * weight_D.float()
    factor_B1D, offset_B1D = factor_BD[:, None], offset_BD[:, None]
    out_BSD = torch.empty_like(x_BSD, memory_format=torch.contiguous_format)
    for tokens in _token_slices(x_BSD):
        normed = F.layer_norm(x_BSD[:, tokens].float(), x_BSD.shape[-1:], eps=eps)
        out_BSD[:, tokens] = torch.addcmul(offset_B1D, normed, factor_B1D)
    return out_BSD


def native_gated_residual(x_BSD: Tensor, y_BSD: Tensor, gate_BD: Tensor) -> Tensor:
    """addcmul in float32, since nothing documents how the operator rounds in half precision."""
    gate_B1D = gate_BD.float()[:, None]
    out_BSD = torch.empty_like(x_BSD, memory_format=torch.contiguous_format)
    for tokens in _token_slices(x_BSD):
        out_BSD[:, tokens] = torch.addcmul(
            x_BSD[:, tokens].float(), y_BSD[:, tokens].float(), gate_B1D
        )
    return out_BSD


def fused_gelu_tanh(x: Tensor) -> Tensor:
    """npu_gelu, whose `approximate` is honoured on every chip; F.gelu's is not."""
    return torch.ops.npu.npu_gelu(x, approximate="tanh")


def implementations(toolbox: Toolbox) -> list[OpImpl[Any]]:
    def gelu_why_not(site: Site) -> list[str]:
        return toolbox.why_not(site, "npu_gelu")

    native = toolbox.why_not
    return [
        OpImpl(op=ADALN_MODULATE, name="native", fn=native_adaln_modulate, why_not=native),
        OpImpl(op=GATED_RESIDUAL, name="native", fn=native_gated_residual, why_not=native),
        OpImpl(op=GELU_TANH, name="fused", fn=fused_gelu_tanh, why_not=gelu_why_not),
    ]
