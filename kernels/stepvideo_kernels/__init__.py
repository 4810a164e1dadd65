"""Triton kernels of a video diffusion transformer and a causal video autoencoder.

One family per file, in the order kernel, config, public function, plain-torch twin. They depend on
torch and Triton only. Importing this package imports Triton; nothing is compiled before the first
call.
"""

from stepvideo_kernels.adaln import triton_adaln_modulate, triton_gated_residual
from stepvideo_kernels.attention import triton_attention
from stepvideo_kernels.gelu import triton_gelu_tanh
from stepvideo_kernels.group_norm import triton_group_norm_silu
from stepvideo_kernels.launch import interpreted
from stepvideo_kernels.pixel_shuffle import triton_pixel_shuffle_add, triton_pixel_unshuffle_add
from stepvideo_kernels.qk_norm_rope import triton_qk_norm_rope
from stepvideo_kernels.rms_norm import triton_rms_norm
from stepvideo_kernels.rope import triton_rope_3d
from stepvideo_kernels.tuning import disable_tuning, enable_tuning

__all__ = [
    "disable_tuning",
    "enable_tuning",
    "interpreted",
    "triton_adaln_modulate",
    "triton_attention",
    "triton_gated_residual",
    "triton_gelu_tanh",
    "triton_group_norm_silu",
    "triton_pixel_shuffle_add",
    "triton_pixel_unshuffle_add",
    "triton_qk_norm_rope",
    "triton_rms_norm",
    "triton_rope_3d",
]
