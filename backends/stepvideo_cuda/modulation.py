"""AdaLN modulation, gated residual and tanh GELU by our Triton kernels."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from stepvideo_core.ops import ADALN_MODULATE, GATED_RESIDUAL, GELU_TANH, OpImpl
from stepvideo_cuda.toolbox import Toolbox


def implementations(toolbox: Toolbox) -> list[OpImpl[Any]]:
    kernels = toolbox.kernels

    def triton_adaln_modulate(
        x_BSD: Tensor,
        weight_D: Tensor | None,
        bias_D: Tensor | None,
        eps: float,
        shift_BD: Tensor,
        scale_BD: Tensor,
    ) -> Tensor:
        return kernels.module.triton_adaln_modulate(
            x_BSD, weight_D, bias_D, eps, shift_BD, scale_BD
        )

    def triton_gated_residual(x_BSD: Tensor, y_BSD: Tensor, gate_BD: Tensor) -> Tensor:
        return kernels.module.triton_gated_residual(x_BSD, y_BSD, gate_BD)

    def triton_gelu_tanh(x: Tensor) -> Tensor:
        return kernels.module.triton_gelu_tanh(x)

    refuse = toolbox.triton_why_not
    return [
        OpImpl(op=ADALN_MODULATE, name="triton", fn=triton_adaln_modulate, why_not=refuse),
        OpImpl(op=GATED_RESIDUAL, name="triton", fn=triton_gated_residual, why_not=refuse),
        OpImpl(op=GELU_TANH, name="triton", fn=triton_gelu_tanh, why_not=refuse),
    ]
