"""The operators that backends implement.

Axis letters: B batch, S queries or tokens, T keys (or frames, in BCTHW), H query heads (or rows),
G key heads, D channels of a head (or the model width), C/I/O channels, W columns, K kernel.

One rounding rule holds for all: arithmetic in float32 (float64 for float64 inputs) and a single
rounding to the input's dtype at the end. Implementations never write to their inputs.
"""

from __future__ import annotations

from typing import Any

from stepvideo_core.ops.attention import ATTENTION, Attention, AttentionSite
from stepvideo_core.ops.contract import OpContract, OpImpl, Site, accept_any
from stepvideo_core.ops.convolution import (
    CAUSAL_CONV3D,
    CONV2D,
    PIXEL_SHUFFLE_ADD,
    PIXEL_UNSHUFFLE_ADD,
    CausalConv3d,
    Conv2d,
    ConvSite,
    PixelShuffleAdd,
    PixelSite,
    PixelUnshuffleAdd,
)
from stepvideo_core.ops.cost import Cost
from stepvideo_core.ops.linear import LINEAR, Linear, LinearSite
from stepvideo_core.ops.modulation import (
    ADALN_MODULATE,
    GATED_RESIDUAL,
    GELU_TANH,
    AdaLNModulate,
    GatedResidual,
    GeluTanh,
    ModulationSite,
)
from stepvideo_core.ops.norm import (
    GROUP_NORM_SILU,
    RMS_NORM,
    GroupNormSiLU,
    GroupNormSite,
    RMSNorm,
    RMSNormSite,
)
from stepvideo_core.ops.rope import QK_NORM_ROPE, ROPE_3D, QKNormRope, Rope3D, RopeSite

CONTRACTS: dict[str, OpContract[Any]] = {
    contract.name: contract
    for contract in (
        LINEAR,
        ATTENTION,
        RMS_NORM,
        ROPE_3D,
        QK_NORM_ROPE,
        ADALN_MODULATE,
        GATED_RESIDUAL,
        GELU_TANH,
        CAUSAL_CONV3D,
        CONV2D,
        GROUP_NORM_SILU,
        PIXEL_UNSHUFFLE_ADD,
        PIXEL_SHUFFLE_ADD,
    )
}

__all__ = [
    "ADALN_MODULATE",
    "ATTENTION",
    "CAUSAL_CONV3D",
    "CONTRACTS",
    "CONV2D",
    "GATED_RESIDUAL",
    "GELU_TANH",
    "GROUP_NORM_SILU",
    "LINEAR",
    "PIXEL_SHUFFLE_ADD",
    "PIXEL_UNSHUFFLE_ADD",
    "QK_NORM_ROPE",
    "RMS_NORM",
    "ROPE_3D",
    "AdaLNModulate",
    "Attention",
    "AttentionSite",
    "CausalConv3d",
    "Conv2d",
    "ConvSite",
    "Cost",
    "GatedResidual",
    "GeluTanh",
    "GroupNormSiLU",
    "GroupNormSite",
    "Linear",
    "LinearSite",
    "ModulationSite",
    "OpContract",
    "OpImpl",
    "PixelShuffleAdd",
    "PixelSite",
    "PixelUnshuffleAdd",
    "QKNormRope",
    "RMSNorm",
    "RMSNormSite",
    "Rope3D",
    "RopeSite",
    "Site",
    "accept_any",
]
