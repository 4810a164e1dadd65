"""`npu_fused_infer_attention_score` and `npu_prompt_flash_attention`, unquantised."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from stepvideo_virtual_npu.arguments import Arguments
from stepvideo_virtual_npu.contracts.inference_attention import (
    input_layout,
    key_lengths,
    kv_heads,
)
from stepvideo_virtual_npu.errors import NotModelled
from stepvideo_virtual_npu.kernels.softmax_attention import Dropped, softmax_attention
from stepvideo_virtual_npu.layouts import from_BNSD, to_BNSD

_MODELLED = {"query", "key", "value", "atten_mask"}


def _forward(call: Arguments, scale: float, mode: int) -> tuple[Tensor, Tensor]:
    """The result in its output layout, and log-sum-exp [B, N, Sq, 1]."""
    foreign = sorted(call.tensors().keys() - _MODELLED)
    if foreign:
        raise NotModelled(f"{', '.join(foreign)}: quantised, paged and other inputs")
    layout = input_layout(call)
    out_layout = str(call.input_layout).partition("_")[2] or layout
    q = to_BNSD(call.query, layout, call.num_heads)
    k, v = (to_BNSD(x, layout, kv_heads(call)) for x in (call.key, call.value))
    # The decoding kernel, which a single query goes to, knows no mode and no window.
    window: Any = {"before": call.pre_tokens, "after": call.next_tokens}
    if layout in ("TND", "NTD"):
        parts = []
        q_ends, k_ends = [0, *call.actual_seq_lengths], [0, *call.actual_seq_lengths_kv]
        for (q0, q1), (k0, k1) in zip(pairwise(q_ends), pairwise(k_ends), strict=True):
            mask = call.atten_mask
            if mask is not None and mode in (0, 1):
                mask = mask[: q1 - q0, : k1 - k0]
            dropped = Dropped(mask=mask, mode=mode, **window)
            parts.append(
                softmax_attention(q[:, :, q0:q1], k[:, :, k0:k1], v[:, :, k0:k1], scale, dropped)
            )
        out, maximum, total = (torch.cat(part, dim=2) for part in zip(*parts, strict=True))
    else:
        mask = call.atten_mask
        if mask is not None and mask.dim() == 3:
            mask = mask[None]
        dropped = Dropped(mask=mask, mode=mode, key_lengths=key_lengths(call, q.shape[0]), **window)
        out, maximum, total = softmax_attention(q, k, v, scale, dropped)
    return from_BNSD(out, out_layout), maximum + total.log()


def npu_fused_infer_attention_score(call: Arguments) -> tuple[Tensor, Tensor]:
    out, lse = _forward(call, call.scale, call.sparse_mode)
    if not call.softmax_lse_flag:
        # The documentation says shape [1]; the vendor's shape function, and callers, have [0].
        return out, lse.new_empty(0)
    return out, from_BNSD(lse, "TND") if input_layout(call) == "TND" else lse


def npu_prompt_flash_attention(call: Arguments) -> Tensor:
    # Modes from 10 on are modes 0 to 4 in high precision, which this is in any case.
    return _forward(call, call.scale_value, call.sparse_mode % 10)[0]
