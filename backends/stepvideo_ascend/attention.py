"""Attention by torch_npu's fused operators, by MindIE-SD, and composed of matrix products.

No mask is ever built beyond the fixed 2048 x 2048 triangle that the causal mode wants: key lengths
cost a view, or a list of host integers. Every operator is told its scale, its head counts and both
token windows, for none of their defaults is neutral. npu_fusion_attention_v3, the same kernel for
captured graphs, would gain nothing in eager mode.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stepvideo_ascend.capability import Capability, Generation, dtype_name
from stepvideo_ascend.chunked import chunked_attention
from stepvideo_ascend.fused import (
    fused_infer_attention,
    fusion_attention,
    prompt_flash_attention,
)
from stepvideo_ascend.selftest import KEY_COUNTS, attention_verdict
from stepvideo_ascend.toolbox import Toolbox
from stepvideo_core.ops import ATTENTION, Attention, AttentionSite, OpImpl, Site

_HALF = (torch.bfloat16, torch.float16)
_SERVERS: tuple[Generation, ...] = ("A2", "A3", "950", "unknown")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an operator's documentation allows.

    head_bytes: what a head's row in bytes must be a multiple of. heads: the most query heads.
    group: the most query heads per key head. causal: whether it takes the compressed triangle.
    """

    operator: str
    dtypes: tuple[torch.dtype, ...]
    generations: tuple[Generation, ...]
    head_dim: int
    head_bytes: int
    heads: int
    group: int
    causal: bool


LIMITS: dict[str, Limits] = {
    "fusion": Limits(
        operator="npu_fusion_attention",
        dtypes=(*_HALF, torch.float32),
        generations=_SERVERS,
        head_dim=768,
        head_bytes=1,
        heads=256,
        group=256,
        causal=True,
    ),
    # Rows that are no multiple of 32 bytes are allowed up to 128 channels only; nobody has them.
    "fused_infer": Limits(
        operator="npu_fused_infer_attention_score",
        dtypes=_HALF,
        generations=_SERVERS,
        head_dim=512,
        head_bytes=32,
        heads=256,
        group=64,
        causal=True,
    ),
    # The predecessor of fused_infer, and all that the inference cards have.
    "prompt_flash": Limits(
        operator="npu_prompt_flash_attention",
        dtypes=(torch.float16,),
        generations=("310P",),
        head_dim=512,
        head_bytes=32,
        heads=256,
        group=1,
        causal=False,
    ),
}
# Best first. The Step-Video port of MindSpeed-MM and diffusers run on `fusion`, while `fused_infer`
# has two open reports of wrong results; no rate of either is published at 48 heads and 75,888
# tokens. MindIE-SD's kernel rounds bfloat16 to float16 inside, whose range is smaller: only when
# named. `benchmarks/device_check.sh` measures them all.
_RANKS = {"fusion": 40, "fused_infer": 30, "prompt_flash": 20, "chunked": 10, "mindie": 0}

_LLM_TOKENS = 320
_MINDIE_LEAST_KEYS = 2048
_MINDIE_HEAD_DIM = 128


def refusals(limits: Limits, site: Site, capability: Capability) -> list[str]:
    """Why an operator with these limits cannot serve a site on a chip, with the numbers."""
    assert isinstance(site, AttentionSite)
    reasons = []
    if capability.generation not in limits.generations:
        reasons.append(
            f"it is for {', '.join(name for name in limits.generations if name != 'unknown')}; "
            f"this is {capability}"
        )
    if site.dtype not in limits.dtypes:
        takes = ", ".join(map(dtype_name, limits.dtypes))
        reasons.append(f"it takes {takes}, not {dtype_name(site.dtype)}")
    if site.head_dim > limits.head_dim:
        reasons.append(f"head_dim {site.head_dim} > {limits.head_dim}")
    row = site.head_dim * site.dtype.itemsize
    if row % limits.head_bytes:
        reasons.append(
            f"head_dim {site.head_dim} is {row} bytes, not a multiple of {limits.head_bytes}"
        )
    if site.num_heads > limits.heads:
        reasons.append(f"{site.num_heads} heads > {limits.heads}")
    if site.num_heads > limits.group * site.num_kv_heads:
        reasons.append(
            f"{site.num_heads} query heads for {site.num_kv_heads} key heads; it takes "
            f"{limits.group} per key head at most"
        )
    if site.causal and not limits.causal:
        reasons.append("it takes no causal mask here")
    if site.sqrt_bias:
        mebibytes = site.num_heads * _LLM_TOKENS**2 * 4 / 2**20
        reasons.append(
            "it takes no position bias; as a float mask the bias would leave torch its full matrix "
            f"of {site.num_heads} x S x S logits, {mebibytes:.0f} MiB at S = {_LLM_TOKENS}"
        )
    return reasons


def mindie_refusals(site: Site, capability: Capability) -> list[str]:
    """Why MindIE-SD's kernel cannot serve a site on a chip."""
    assert isinstance(site, AttentionSite)
    reasons = []
    if capability.generation not in ("A2", "A3"):
        reasons.append(f"its kernel is for A2, A3; this is {capability}")
    if site.dtype not in _HALF:
        reasons.append(f"it takes bfloat16, float16, not {dtype_name(site.dtype)}")
    if site.head_dim > _MINDIE_HEAD_DIM:
        reasons.append(f"head_dim {site.head_dim} > {_MINDIE_HEAD_DIM}")
    if site.causal or site.key_lengths or site.num_heads != site.num_kv_heads:
        reasons.append(
            f"its kernel is for full self-attention from {_MINDIE_LEAST_KEYS} tokens on, and hands "
            "the rest to npu_fusion_attention"
        )
    return reasons


def _mindie_attention(toolbox: Toolbox) -> Attention:
    """MindIE-SD's laser attention: [B, H, S, D], padded to 256 tokens, float16 inside."""

    def mindie_attention(
        q_BSHD: Tensor,
        k_BTGD: Tensor,
        v_BTGD: Tensor,
        scale: float,
        causal: bool,
        key_lengths: tuple[int, ...] | None,
        slopes_H: Tensor | None,
    ) -> Tensor:
        assert not causal and key_lengths is None and slopes_H is None, "such sites are refused"
        return toolbox.mindie.module.attention_forward(
            q_BSHD,
            k_BTGD,
            v_BTGD,
            scale=scale,
            head_first=False,
            opt_mode="manual",
            op_type="ascend_laser_attention",
            layout="BNSD",
        )

    return mindie_attention


def implementations(toolbox: Toolbox) -> list[OpImpl[Any]]:
    def impl(
        name: str,
        attend: Attention,
        limits: Callable[[Site, Capability], list[str]],
        *,
        operators: tuple[str, ...] = (),
        library: tuple[str, ...] = (),
        key_counts: tuple[int, ...] = KEY_COUNTS,
    ) -> OpImpl[Any]:
        def why_not(site: Site) -> list[str]:
            assert isinstance(site, AttentionSite)
            reasons = [*library, *toolbox.why_not(site, *operators)]
            if site.device.type == "npu":
                reasons += limits(site, toolbox.capability_of(site.device))
            return reasons or attention_verdict(attend, site, key_counts)

        return OpImpl(op=ATTENTION, name=name, fn=attend, rank=_RANKS[name], why_not=why_not)

    def fused(name: str, attend: Attention) -> OpImpl[Any]:
        limits = LIMITS[name]
        return impl(
            name,
            attend,
            functools.partial(refusals, limits),
            operators=(limits.operator,),
        )

    return [
        fused("fusion", fusion_attention),
        fused("fused_infer", fused_infer_attention),
        fused("prompt_flash", prompt_flash_attention),
        impl("chunked", chunked_attention, lambda site, capability: []),
        impl(
            "mindie",
            _mindie_attention(toolbox),
            mindie_refusals,
            library=tuple(toolbox.mindie.why_not()),
            # Below 2048 keys it calls another kernel than the one to be tested.
            key_counts=(_MINDIE_LEAST_KEYS, _MINDIE_LEAST_KEYS + 424),
        ),
    ]
