"""Merging partial attention results by their softmax statistics."""

from __future__ import annotations

import torch
from torch import Tensor

from stepvideo_virtual_npu.arguments import Arguments
from stepvideo_virtual_npu.errors import NotModelled


def npu_attention_update(call: Arguments) -> tuple[Tensor, Tensor]:
    lse = torch.stack(list(call.lse))
    merged = torch.logsumexp(lse, dim=0)
    parts = torch.stack([part.float() for part in call.local_out])
    out = (parts * torch.exp(lse - merged)[..., None]).sum(dim=0)
    if call.update_type == 0:
        merged = merged.new_empty(0)
    return out.to(call.local_out[0].dtype), merged


def npu_ring_attention_update(call: Arguments) -> tuple[Tensor, Tensor, Tensor]:
    if call.input_layout != "SBH":
        raise NotModelled(f"input_layout {call.input_layout} is not modelled")
    maximum = torch.maximum(call.prev_softmax_max, call.cur_softmax_max)
    before = call.prev_softmax_sum * torch.exp(call.prev_softmax_max - maximum)
    now = call.cur_softmax_sum * torch.exp(call.cur_softmax_max - maximum)
    total = before + now
    heads = maximum.shape[1]

    def weighted(out_SBH: Tensor, share_BNSK: Tensor) -> Tensor:
        weight_SBN1 = (share_BNSK / total)[..., :1].permute(2, 0, 1, 3)
        return out_SBH.float().unflatten(-1, (heads, -1)) * weight_SBN1

    merged = weighted(call.prev_attn_out, before) + weighted(call.cur_attn_out, now)
    return merged.flatten(2).to(call.prev_attn_out.dtype), maximum, total
