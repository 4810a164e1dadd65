"""The operators of the models as training needs them: differentiable everywhere, fast backward.

They form a backend like any other, but one that only training registers. The reference's meanings
serve where nothing faster was needed; its cache-sized variants write into prepared buffers, which
no gradient passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stepvideo_core import __version__
from stepvideo_core.dispatch import ANY_DEVICE, Backend, BackendRegistry, DispatchPlan
from stepvideo_core.dispatch.policy import DispatchPolicy
from stepvideo_core.ops import (
    ADALN_MODULATE,
    ATTENTION,
    CAUSAL_CONV3D,
    CONV2D,
    GATED_RESIDUAL,
    GELU_TANH,
    GROUP_NORM_SILU,
    LINEAR,
    PIXEL_SHUFFLE_ADD,
    PIXEL_UNSHUFFLE_ADD,
    QK_NORM_ROPE,
    RMS_NORM,
    ROPE_3D,
    OpImpl,
)
from stepvideo_reference import attention, convolution, linear, modulation, norm, rope
from stepvideo_reference.precision import wide
from stepvideo_training.group_norm import trainable_group_norm_silu

_NAME = "training"


def trainable_adaln_modulate(
    x_BSD: Tensor,
    weight_D: Tensor | None,
    bias_D: Tensor | None,
    eps: float,
    shift_BD: Tensor,
    scale_BD: Tensor,
) -> Tensor:
    """ADALN_MODULATE on torch's LayerNorm, whose backward pass is one kernel."""
    weight = None if weight_D is None else wide(weight_D)
    bias = None if bias_D is None else wide(bias_D)
    normed = F.layer_norm(wide(x_BSD), x_BSD.shape[-1:], weight, bias, eps)
    factor_B1D = 1 + wide(scale_BD)[:, None]
    return torch.addcmul(wide(shift_BD)[:, None], normed, factor_B1D).to(x_BSD.dtype)


def training_plan(device: torch.device) -> DispatchPlan:
    """A plan that binds every site to a differentiable implementation.

    The models' parameters stay in float32; autocast decides what is computed in bfloat16.
    """
    registry = BackendRegistry()
    registry.add(
        Backend(
            name=_NAME,
            device_type=ANY_DEVICE,
            why_not=list,
            load=_load,
            version=__version__,
            summary="differentiable operators",
        )
    )
    policy = DispatchPolicy(backend=_NAME, allow_fallback=False)
    return DispatchPlan(registry, policy, device=device, dtype=torch.float32)


def _load() -> Sequence[OpImpl[Any]]:
    return (
        OpImpl(op=LINEAR, name="torch", fn=linear.eager_linear),
        OpImpl(op=ATTENTION, name="sdpa", fn=attention.sdpa_attention),
        OpImpl(op=RMS_NORM, name="eager", fn=norm.eager_rms_norm),
        OpImpl(op=ROPE_3D, name="eager", fn=rope.eager_rope_3d),
        OpImpl(op=QK_NORM_ROPE, name="eager", fn=rope.eager_qk_norm_rope),
        OpImpl(op=ADALN_MODULATE, name="layer_norm", fn=trainable_adaln_modulate),
        OpImpl(op=GATED_RESIDUAL, name="eager", fn=modulation.eager_gated_residual),
        OpImpl(op=GELU_TANH, name="eager", fn=modulation.eager_gelu_tanh),
        OpImpl(op=CAUSAL_CONV3D, name="channels_last", fn=convolution.channels_last_causal_conv3d),
        OpImpl(op=CONV2D, name="channels_last", fn=convolution.channels_last_conv2d),
        OpImpl(op=GROUP_NORM_SILU, name="analytic", fn=trainable_group_norm_silu),
        OpImpl(op=PIXEL_SHUFFLE_ADD, name="eager", fn=convolution.eager_pixel_shuffle_add),
        OpImpl(op=PIXEL_UNSHUFFLE_ADD, name="eager", fn=convolution.eager_pixel_unshuffle_add),
    )
