"""`npu_fusion_attention`, v2 and v3 as their documentation defines them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stepvideo_virtual_npu.arguments import Arguments
from stepvideo_virtual_npu.contracts.fusion_attention import cumulative, extents
from stepvideo_virtual_npu.errors import NotModelled
from stepvideo_virtual_npu.kernels.softmax_attention import Dropped, softmax_attention
from stepvideo_virtual_npu.layouts import from_BNSD, to_BNSD

_STATISTICS_WIDTH = 8  # the device repeats each value to fill a 32-byte block


def _forward(call: Arguments, before: int, after: int, pse_type: int = 1) -> tuple[Tensor, ...]:
    if call.keep_prob != 1.0:
        raise NotModelled(f"dropout (keep_prob {call.keep_prob}) is not modelled")
    if call.atten_mask is not None and call.sparse_mode > 4:
        raise NotModelled(f"sparse_mode {call.sparse_mode} is not modelled")
    if call.pse is not None and pse_type not in (0, 1):
        raise NotModelled(f"pse_type {pse_type} is not modelled")
    dropped = Dropped(mask=call.atten_mask, mode=call.sparse_mode, before=before, after=after)
    layout = call.input_layout
    q, k, v = extents(call)
    parts = (
        to_BNSD(call.query, layout, q.heads),
        to_BNSD(call.key, layout, k.heads),
        to_BNSD(call.value, layout, v.heads),
    )
    options = {"add_first": pse_type == 1, "sink_N": call.sink}
    if layout == "TND":
        if call.pse is not None or call.softmax_layout == "TND":
            raise NotModelled("pse and softmax_layout are not modelled for layout TND")
        return _ragged(call, parts, dropped, options)
    out, maximum, total = softmax_attention(*parts, call.scale, dropped, pse=call.pse, **options)
    return from_BNSD(out, layout), _widened(maximum), _widened(total)


def _ragged(
    call: Arguments, parts: tuple[Tensor, Tensor, Tensor], dropped: Dropped, options: Any
) -> tuple[Tensor, ...]:
    q, k, v = parts
    q_ends = cumulative(call.actual_seq_qlen) or []
    k_ends = cumulative(call.actual_seq_kvlen) or []
    results = []
    q_start = k_start = 0
    for q_end, k_end in zip(q_ends, k_ends, strict=True):
        if q_end > q_start:
            mine = dropped
            if dropped.mask is not None and dropped.mode in (0, 1):
                mask = dropped.mask[: q_end - q_start, : k_end - k_start]
                mine = Dropped(
                    mask=mask, mode=dropped.mode, before=dropped.before, after=dropped.after
                )
            results.append(
                softmax_attention(
                    q[:, :, q_start:q_end],
                    k[:, :, k_start:k_end],
                    v[:, :, k_start:k_end],
                    call.scale,
                    mine,
                    **options,
                )
            )
        q_start, k_start = max(q_end, q_start), max(k_end, k_start)
    out, maximum, total = (torch.cat(part, dim=2) for part in zip(*results, strict=True))
    return (
        from_BNSD(out, "TND"),
        from_BNSD(_widened(maximum), "TND"),
        from_BNSD(_widened(total), "TND"),
    )


def _widened(statistics: Tensor) -> Tensor:
    return statistics.expand(*statistics.shape[:-1], _STATISTICS_WIDTH).contiguous()


def npu_fusion_attention(call: Arguments) -> tuple[Any, ...]:
    results = _forward(call, call.pre_tockens, call.next_tockens)
    return (*results, call.query.new_empty(0), 0, 0, 0)


def npu_fusion_attention_v2(call: Arguments) -> tuple[Any, ...]:
    if call.query_rope is not None or call.key_rope is not None:
        raise NotModelled("query_rope and key_rope are not modelled")
    results = _forward(call, call.pre_tokens, call.next_tokens, call.pse_type)
    return (*results, call.query.new_empty(0), 0, 0, 0)


def npu_fusion_attention_v3(call: Arguments) -> tuple[Tensor, ...]:
    results = _forward(call, call.pre_tockens, call.next_tockens)
    seed, offset = (torch.zeros(1, dtype=torch.int64) for _ in range(2))
    return (*results, call.query.new_empty(0), seed, offset)
