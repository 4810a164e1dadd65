"""Limits of the operators that merge partial attention results of several devices."""

from __future__ import annotations

import torch

from stepvideo_virtual_npu.arguments import Arguments
from stepvideo_virtual_npu.contracts.base import (
    FLOATS,
    Complaints,
    OperatorContract,
    check_choice,
    check_dtypes,
    check_range,
    shape_text,
)
from stepvideo_virtual_npu.soc import Generation, Soc


def _attention_update(call: Arguments, soc: Soc) -> Complaints:
    parts = len(call.lse)
    yield from check_choice("update_type", call.update_type, (0, 1))
    yield from check_range("the number of parts", parts, 1, 16)
    if parts != len(call.local_out):
        yield f"there are {parts} lse and {len(call.local_out)} local_out"
        return
    for index, (lse, out) in enumerate(zip(call.lse, call.local_out, strict=True)):
        yield from check_dtypes((torch.float32,), **{f"lse[{index}]": lse})
        yield from check_dtypes(FLOATS, **{f"local_out[{index}]": out})
        if out.dim() != 2 or list(lse.shape) != [out.shape[0]]:
            yield (
                f"lse[{index}] {shape_text(lse)} and local_out[{index}] {shape_text(out)} must be "
                "[rows] and [rows, width]"
            )
        elif out.shape[1] % 8 != 0 or not 8 <= out.shape[1] <= 512:
            yield f"the width {out.shape[1]} is no multiple of 8 within 8 to 512"


def _ring_update(call: Arguments, soc: Soc) -> Complaints:
    yield from check_choice("input_layout", call.input_layout, ("SBH", "TND"))
    yield from check_dtypes(FLOATS, prev=call.prev_attn_out, cur=call.cur_attn_out)
    statistics = ("prev_softmax_max", "prev_softmax_sum", "cur_softmax_max", "cur_softmax_sum")
    for name in statistics:
        tensor = getattr(call, name)
        yield from check_dtypes((torch.float32,), **{name: tensor})
        if tensor.shape != call.prev_softmax_max.shape or tensor.shape[-1] != 8:
            yield f"{name} {shape_text(tensor)} must end in 8, like the other statistics"


MERGING_CONTRACTS = (
    OperatorContract(
        name="npu_attention_update",
        source="torch_npu-npu_attention_update.md",
        limits=_attention_update,
        generations=(Generation.A2, Generation.A3, Generation.ASCEND_950),
    ),
    OperatorContract(
        name="npu_ring_attention_update",
        source="torch_npu-npu_ring_attention_update.md",
        limits=_ring_update,
        generations=(Generation.A2, Generation.A3, Generation.ASCEND_950),
    ),
)
