"""Rotary position embedding with full-width tables."""

from __future__ import annotations

import torch
from torch import Tensor

from stepvideo_virtual_npu.arguments import Arguments
from stepvideo_virtual_npu.errors import NotModelled


def _rotated(x: Tensor, mode: str) -> Tensor:
    if mode == "half":
        first, second = x.chunk(2, dim=-1)
        return torch.cat((-second, first), dim=-1)
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((-odd, even), dim=-1).flatten(-2)


def npu_rotary_mul(call: Arguments) -> Tensor:
    """The tables are cast to the input's dtype first, as the device does."""
    x = call.input.float()
    cos, sin = (table.to(call.input.dtype).float() for table in (call.r1, call.r2))
    turned = _rotated(x, call.rotary_mode) if call.rotate is None else x @ call.rotate.float()
    return (x * cos + turned * sin).to(call.input.dtype)


def npu_apply_rotary_pos_emb(call: Arguments) -> tuple[Tensor, Tensor]:
    """Rotates query and key in place, though the schema does not say so, and returns copies."""
    if call.rotary_mode == "quarter":
        raise NotModelled("rotary_mode quarter is not modelled")
    cos, sin = call.cos.float(), call.sin.float()
    for x in (call.query, call.key):
        wide = x.float()
        x.copy_(wide * cos + _rotated(wide, call.rotary_mode) * sin)
    return call.query.clone(), call.key.clone()
