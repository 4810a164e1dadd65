"""Scaled dot-product attention over [batch, sequence, heads, head_dim] tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from stepvideo_core.ops.contract import OpContract, Site
from stepvideo_core.ops.cost import Cost, tensor_bytes


class Attention(Protocol):
    """softmax(q k^T * scale + bias) v, without a dropout and without a dense mask."""

    def __call__(
        self,
        q_BSHD: Tensor,
        k_BTGD: Tensor,
        v_BTGD: Tensor,
        scale: float,
        causal: bool,
        key_lengths: tuple[int, ...] | None,
        slopes_H: Tensor | None,
    ) -> Tensor:
        """Attend from S queries to T keys.

        q_BSHD: queries [B, S, H, D], any strides.
        k_BTGD, v_BTGD: keys and values [B, T, G, D] in q's dtype; H is a multiple of G and query
            head h reads key head h // (H // G). They are never repeated in memory by the caller.
        scale: factor on q k^T; never derived from D by an implementation.
        causal: query i sees keys 0..i; S == T.
        key_lengths: per sample, how many leading keys are valid (host integers, 1..T); None means
            all. Not combined with `causal`.
        slopes_H: Step-LLM's position bias in float32 (float64 for float64 inputs):
            -slopes[h] * sqrt(i - j) is added to the logit of query i and key j; causal only.

        Returns [B, S, H, D] in q's dtype. Logits, softmax and accumulation in float32 (float64
        for float64 inputs); the attention weights may be rounded to q's dtype before they meet v.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class AttentionSite(Site):
    """Traits of an attention call place."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    causal: bool = False
    key_lengths: bool = False
    """Whether samples of one batch may have different numbers of keys."""
    sqrt_bias: bool = False


def _attention_cost(
    q_BSHD: Tensor,
    k_BTGD: Tensor,
    v_BTGD: Tensor,
    scale: float,
    causal: bool,
    key_lengths: tuple[int, ...] | None,
    slopes_H: Tensor | None,
) -> Cost:
    """4 D operations for every query and every key that it sees, padding left out."""
    batch, num_queries, num_heads, head_dim = q_BSHD.shape
    num_keys, num_kv_heads = k_BTGD.shape[1:3]
    lengths = (num_keys,) * batch if key_lengths is None else key_lengths
    pairs = sum(num_queries * length for length in lengths)
    if causal:
        pairs = batch * num_queries * (num_queries + 1) // 2
    kv_bytes = 2 * sum(lengths) * num_kv_heads * head_dim * k_BTGD.element_size()
    return Cost(
        flops=4 * pairs * num_heads * head_dim,
        num_bytes=2 * tensor_bytes(q_BSHD) + kv_bytes + tensor_bytes(slopes_H),
    )


ATTENTION = OpContract[Attention](name="attention", call=Attention.__call__, cost=_attention_cost)
