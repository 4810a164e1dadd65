"""Attention composed of matrix products, for what no fused operator takes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Logits of one chunk of queries, in elements: 128 MiB in float32. A chunk has its logits, the bias
# and the softmax's result at once, so the call needs three times that beside float32 keys and
# values: 384 MiB. Step-LLM's 320 tokens of 48 heads are one chunk of 19 MiB.
CHUNK_LOGITS = 1 << 25


def chunked_attention(
    q_BSHD: Tensor,
    k_BTGD: Tensor,
    v_BTGD: Tensor,
    scale: float,
    causal: bool,
    key_lengths: tuple[int, ...] | None,
    slopes_H: Tensor | None,
) -> Tensor:
    """Exact softmax for some queries at a time, in float32, with Step-LLM's bias where it is.

    Query heads that share a key head are rows of one product, so keys and values are not repeated.
    Memory is at most 3 * CHUNK_LOGITS float32 beside float32 copies of the keys and the values.
    """
    batch, num_queries, num_heads, head_dim = q_BSHD.shape
    num_keys, num_kv_heads = k_BTGD.shape[1:3]
    group = num_heads // num_kv_heads
    rows = max(1, CHUNK_LOGITS // (batch * num_heads * num_keys))
    k_BGDT = k_BTGD.float().permute(0, 2, 3, 1).contiguous()
    v_BGTD = v_BTGD.float().transpose(1, 2).contiguous()
    keys_T = torch.arange(num_keys, device=q_BSHD.device, dtype=torch.int32)
    out_BSHD = torch.empty_like(q_BSHD, memory_format=torch.contiguous_format)
    for first in range(0, num_queries, rows):
        last = min(first + rows, num_queries)
        # Later keys than the chunk's last query are not even multiplied.
        seen = last if causal else num_keys
        q_BGXD = (q_BSHD[:, first:last].float() * scale).unflatten(2, (num_kv_heads, group))
        q_BGXD = q_BGXD.permute(0, 2, 3, 1, 4).flatten(2, 3)
        logits = (q_BGXD @ k_BGDT[..., :seen]).view(batch, num_heads, last - first, seen)
        queries_R = torch.arange(first, last, device=q_BSHD.device, dtype=torch.int32)
        ahead_RT = keys_T[None, :seen] - queries_R[:, None]
        if slopes_H is not None:
            distance_RT = (-ahead_RT).clamp_min(0).float().sqrt()
            logits -= slopes_H.float()[:, None, None] * distance_RT
        if causal:
            logits.masked_fill_(ahead_RT > 0, -math.inf)
        for sample, length in enumerate(key_lengths or ()):
            logits[sample, :, :, length:] = -math.inf
        weights = logits.softmax(dim=-1).view(batch, num_kv_heads, -1, seen)
        part = (weights @ v_BGTD[:, :, :seen]).view(batch, num_heads, last - first, head_dim)
        out_BSHD[:, first:last] = part.transpose(1, 2)
    return out_BSHD
