"""RMSNorm and GroupNorm + SiLU by our Triton kernels."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from stepvideo_core.ops import GROUP_NORM_SILU, RMS_NORM, OpImpl
from stepvideo_cuda.toolbox import Toolbox


def implementations(toolbox: Toolbox) -> list[OpImpl[Any]]:
    kernels = toolbox.kernels

    def triton_rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
        return kernels.module.triton_rms_norm(x, weight, eps)

    def triton_group_norm_silu(
        x_BCTHW: Tensor,
        weight_C: Tensor,
        bias_C: Tensor,
        num_groups: int,
        eps: float,
        per_frame: bool,
        silu: bool,
        front_frames: int,
    ) -> Tensor:
        return kernels.module.triton_group_norm_silu(
            x_BCTHW, weight_C, bias_C, num_groups, eps, per_frame, silu, front_frames
        )

    return [
        OpImpl(op=RMS_NORM, name="triton", fn=triton_rms_norm, why_not=toolbox.triton_why_not),
        OpImpl(
            op=GROUP_NORM_SILU,
            name="triton",
            fn=triton_group_norm_silu,
            why_not=toolbox.triton_why_not,
        ),
    ]
