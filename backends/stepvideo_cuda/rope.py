"""RoPE-3D, alone and fused with the query/key normalisation, by our Triton kernels."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from stepvideo_core.ops import QK_NORM_ROPE, ROPE_3D, OpImpl
from stepvideo_cuda.toolbox import Toolbox


def implementations(toolbox: Toolbox) -> list[OpImpl[Any]]:
    kernels = toolbox.kernels

    def triton_rope_3d(
        x_BSHD: Tensor, cos_SD: Tensor, sin_SD: Tensor, axes: tuple[int, int, int]
    ) -> Tensor:
        return kernels.module.triton_rope_3d(x_BSHD, cos_SD, sin_SD, axes)

    def triton_qk_norm_rope(
        qkv_BSHX: Tensor,
        q_weight_D: Tensor,
        k_weight_D: Tensor,
        eps: float,
        cos_SD: Tensor,
        sin_SD: Tensor,
        axes: tuple[int, int, int],
    ) -> tuple[Tensor, Tensor, Tensor]:
        return kernels.module.triton_qk_norm_rope(
            qkv_BSHX, q_weight_D, k_weight_D, eps, cos_SD, sin_SD, axes
        )

    return [
        OpImpl(op=ROPE_3D, name="triton", fn=triton_rope_3d, why_not=toolbox.triton_why_not),
        OpImpl(
            op=QK_NORM_ROPE, name="triton", fn=triton_qk_norm_rope, why_not=toolbox.triton_why_not
        ),
    ]
