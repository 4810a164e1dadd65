"""Native operators for which torch has a wrong CPU kernel, or none: functions of CPU tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stepvideo_virtual_npu.soc import Generation, Soc


def substitutes(soc: Soc) -> dict[str, Callable[..., Any]]:
    """What to compute instead, by `name` or `name.overload` under `aten`."""

    def form(approximate: str) -> str:
        """Below the 950 the native operator computes the tanh form whatever it is asked for, unless
        torch_npu's compatible implementation is on."""
        import torch_npu

        obeys = soc.generation is Generation.ASCEND_950
        obeys = obeys or torch_npu.npu.are_compatible_impl_enabled()
        return approximate if obeys else "tanh"

    def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
        return F.gelu(x, approximate=form(approximate))

    def gelu_out(x: Tensor, *, approximate: str = "none", out: Tensor) -> Tensor:
        return torch.ops.aten.gelu.out(x, approximate=form(approximate), out=out)

    def gelu_backward(grad: Tensor, x: Tensor, *, approximate: str = "none") -> Tensor:
        return torch.ops.aten.gelu_backward.default(grad, x, approximate=form(approximate))

    return {
        "gelu": gelu,
        "gelu.out": gelu_out,
        "gelu_backward": gelu_backward,
        "linear_backward": _linear_backward,
        "matmul_backward": _matmul_backward,
    }


def _linear_backward(
    x: Tensor, grad: Tensor, weight: Tensor, wanted: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """torch_npu differentiates `linear` as a whole; on the CPU its parts are differentiated."""
    rows = grad.reshape(-1, grad.shape[-1])
    return (
        grad @ weight if wanted[0] else None,
        rows.t() @ x.reshape(-1, x.shape[-1]) if wanted[1] else None,
        rows.sum(dim=0) if wanted[2] else None,
    )


def _matmul_backward(
    grad: Tensor, a: Tensor, b: Tensor, wanted: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    left = a[None] if a.dim() == 1 else a
    right = b[:, None] if b.dim() == 1 else b
    if a.dim() == 1:
        grad = grad.unsqueeze(-1 if b.dim() == 1 else -2)
    if b.dim() == 1:
        grad = grad.unsqueeze(-1)
    grad_a = (grad @ right.mT).sum_to_size(left.shape).reshape(a.shape) if wanted[0] else None
    grad_b = (left.mT @ grad).sum_to_size(right.shape).reshape(b.shape) if wanted[1] else None
    return grad_a, grad_b
