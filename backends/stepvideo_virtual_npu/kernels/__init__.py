"""CPU kernels of the `npu::` operators, by name, written from the vendor's documentation.

They take the arguments of a call that its contract has accepted, and compute in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stepvideo_virtual_npu.arguments import Arguments
from stepvideo_virtual_npu.kernels import (
    activations,
    convolution,
    fusion_attention,
    inference_attention,
    merging,
    norms,
    rotary,
)

Kernel = Callable[[Arguments], Any]

_UNDER_THEIR_OWN_NAMES: tuple[Kernel, ...] = (
    fusion_attention.npu_fusion_attention,
    fusion_attention.npu_fusion_attention_v2,
    fusion_attention.npu_fusion_attention_v3,
    inference_attention.npu_fused_infer_attention_score,
    inference_attention.npu_prompt_flash_attention,
    merging.npu_attention_update,
    merging.npu_ring_attention_update,
    rotary.npu_rotary_mul,
    rotary.npu_apply_rotary_pos_emb,
    norms.npu_rms_norm,
    norms.npu_gemma_rms_norm,
    norms.npu_add_rms_norm,
    norms.npu_layer_norm_eval,
    norms.npu_add_layer_norm,
    norms.npu_deep_norm,
    norms.npu_group_norm_silu,
    norms.npu_group_norm_swish,
    activations.npu_gelu,
    activations.npu_fast_gelu,
    activations.npu_gelu_mul,
    activations.npu_geglu,
    activations.npu_swiglu,
    activations.npu_silu,
    convolution.npu_convolution,
)

KERNELS: dict[str, Kernel] = {
    **{kernel.__name__: kernel for kernel in _UNDER_THEIR_OWN_NAMES},
    "npu_conv3d": convolution.npu_convolution,
}

__all__ = ["KERNELS", "Kernel"]
