"""Attention: the full-matrix meaning, torch's fused kernel, and a query-chunked softmax."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from stepvideo_core.ops import ATTENTION, AttentionSite, OpImpl, Site
from stepvideo_reference.precision import wide

# Logits of one query chunk, in elements: 64 MiB in float32, which stays out of the way of the
# activations and is far above the size where a chunk's matrix product loses efficiency.
_CHUNK_LOGITS = 1 << 24


def _distance_bias(slopes_H: Tensor, first_query: int, num_queries: int, num_keys: int) -> Tensor:
    """-slope * sqrt(i - j) for queries i from `first_query` on; [H, queries, keys]."""
    queries = torch.arange(first_query, first_query + num_queries, device=slopes_H.device)
    keys = torch.arange(num_keys, device=slopes_H.device)
    distance = (queries[:, None] - keys[None, :]).clamp_min(0).to(slopes_H.dtype)
    return -slopes_H[:, None, None] * distance.sqrt()


def _expand_heads(x_BTGD: Tensor, num_heads: int) -> Tensor:
    return x_BTGD.repeat_interleave(num_heads // x_BTGD.shape[2], dim=2)


def eager_attention(
    q_BSHD: Tensor,
    k_BTGD: Tensor,
    v_BTGD: Tensor,
    scale: float,
    causal: bool,
    key_lengths: tuple[int, ...] | None,
    slopes_H: Tensor | None,
) -> Tensor:
    """The meaning of the operator: the whole score matrix at once."""
    num_queries, num_heads = q_BSHD.shape[1:3]
    num_keys = k_BTGD.shape[1]
    q = wide(q_BSHD)
    k, v = (wide(_expand_heads(x, num_heads)) for x in (k_BTGD, v_BTGD))
    logits_BHST = torch.einsum("bshd,bthd->bhst", q, k) * scale
    if slopes_H is not None:
        logits_BHST = logits_BHST + _distance_bias(wide(slopes_H), 0, num_queries, num_keys)
    positions = torch.arange(num_keys, device=q.device)
    if causal:
        future = positions[None, :] > positions[:num_queries, None]
        logits_BHST = logits_BHST.masked_fill(future, -math.inf)
    if key_lengths is not None:
        lengths = torch.tensor(key_lengths, device=q.device)
        padding = positions[None, :] >= lengths[:, None]
        logits_BHST = logits_BHST.masked_fill(padding[:, None, None, :], -math.inf)
    out = torch.einsum("bhst,bthd->bshd", logits_BHST.softmax(dim=-1), v)
    return out.to(q_BSHD.dtype)


def sdpa_attention(
    q_BSHD: Tensor,
    k_BTGD: Tensor,
    v_BTGD: Tensor,
    scale: float,
    causal: bool,
    key_lengths: tuple[int, ...] | None,
    slopes_H: Tensor | None,
) -> Tensor:
    """torch's scaled_dot_product_attention: no score matrix where torch has a fused kernel."""
    if key_lengths is not None and len(set(key_lengths)) == 1:
        k_BTGD, v_BTGD = k_BTGD[:, : key_lengths[0]], v_BTGD[:, : key_lengths[0]]
        key_lengths = None
    num_queries, num_keys = q_BSHD.shape[1], k_BTGD.shape[1]
    mask = None
    if slopes_H is not None:
        bias = _distance_bias(slopes_H, 0, num_queries, num_keys)
        future = torch.ones(num_queries, num_keys, dtype=torch.bool, device=bias.device).triu(1)
        mask = bias.masked_fill(future, -math.inf)[None].to(q_BSHD.dtype)
    elif key_lengths is not None:
        lengths = torch.tensor(key_lengths, device=q_BSHD.device)
        positions = torch.arange(num_keys, device=q_BSHD.device)
        mask = (positions[None, :] < lengths[:, None])[:, None, None, :]
    out_BHSD = F.scaled_dot_product_attention(
        q_BSHD.transpose(1, 2),
        k_BTGD.transpose(1, 2),
        v_BTGD.transpose(1, 2),
        attn_mask=mask,
        is_causal=causal and mask is None,
        scale=scale,
        enable_gqa=q_BSHD.shape[2] != k_BTGD.shape[2],
    )
    return out_BHSD.transpose(1, 2)


def _sdpa_why_not(site: Site) -> list[str]:
    assert isinstance(site, AttentionSite)
    if site.sqrt_bias and site.dtype in (torch.bfloat16, torch.float16):
        name = str(site.dtype).removeprefix("torch.")
        return [f"it takes a bias only in {name}, which rounds the position bias"]
    if site.head_dim > 256 and site.device.type != "cpu":
        return [f"head_dim {site.head_dim} > 256 leaves torch only its full-matrix kernel"]
    return []


def chunked_attention(
    q_BSHD: Tensor,
    k_BTGD: Tensor,
    v_BTGD: Tensor,
    scale: float,
    causal: bool,
    key_lengths: tuple[int, ...] | None,
    slopes_H: Tensor | None,
) -> Tensor:
    """Exact softmax over all keys for a few queries at a time; memory linear in the keys."""
    num_queries, num_heads = q_BSHD.shape[1:3]
    num_keys = k_BTGD.shape[1]
    rows = max(1, _CHUNK_LOGITS // (q_BSHD.shape[0] * num_heads * num_keys))
    k_BHTD, v_BHTD = (wide(_expand_heads(x, num_heads).transpose(1, 2)) for x in (k_BTGD, v_BTGD))
    out_BSHD = torch.empty_like(q_BSHD, memory_format=torch.contiguous_format)
    for first in range(0, num_queries, rows):
        last = min(first + rows, num_queries)
        seen = last if causal else num_keys
        q_BHRD = wide(q_BSHD[:, first:last].transpose(1, 2)) * scale
        logits = q_BHRD @ k_BHTD[:, :, :seen].transpose(2, 3)
        if slopes_H is not None:
            logits += _distance_bias(slopes_H, first, last - first, seen)
        if causal:
            future = torch.ones(last - first, seen, dtype=torch.bool, device=logits.device)
            logits.masked_fill_(future.triu(first + 1), -math.inf)
        if key_lengths is not None:
            for sample, length in enumerate(key_lengths):
                logits[sample, :, :, length:] = -math.inf
        out_BSHD[:, first:last] = (logits.softmax(dim=-1) @ v_BHTD[:, :, :seen]).transpose(1, 2)
    return out_BSHD


IMPLS = (
    OpImpl(op=ATTENTION, name="eager", fn=eager_attention),
    OpImpl(op=ATTENTION, name="chunked", fn=chunked_attention, rank=10),
    OpImpl(op=ATTENTION, name="sdpa", fn=sdpa_attention, rank=20, why_not=_sdpa_why_not),
)
