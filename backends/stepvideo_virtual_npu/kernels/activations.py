"""Activation functions, computed in float32."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stepvideo_virtual_npu.arguments import Arguments


def npu_gelu(call: Arguments) -> Tensor:
    return F.gelu(call.input.float(), approximate=call.approximate).to(call.input.dtype)


def npu_fast_gelu(call: Arguments) -> Tensor:
    """x * sigmoid(1.702 x), elsewhere known as QuickGELU; no approximation of `npu_gelu`."""
    x = call.input.float()
    return (x * torch.sigmoid(1.702 * x)).to(call.input.dtype)


def npu_gelu_mul(call: Arguments) -> Tensor:
    first, second = call.input.float().chunk(2, dim=-1)
    return (F.gelu(first, approximate=call.approximate) * second).to(call.input.dtype)


def npu_geglu(call: Arguments) -> tuple[Tensor, Tensor]:
    first, second = call.input.float().chunk(2, dim=call.dim)
    if call.activate_left:
        first, second = second, first
    activated = F.gelu(second, approximate="tanh" if call.approximate == 1 else "none")
    dtype = call.input.dtype
    return (first * activated).to(dtype), activated.to(dtype)


def npu_swiglu(call: Arguments) -> Tensor:
    first, second = call.input.float().chunk(2, dim=call.dim)
    return (F.silu(first) * second).to(call.input.dtype)


def npu_silu(call: Arguments) -> Tensor:
    return F.silu(call.input.float()).to(call.input.dtype)
