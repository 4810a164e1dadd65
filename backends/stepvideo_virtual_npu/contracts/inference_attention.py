"""Limits of `npu_fused_infer_attention_score` and `npu_prompt_flash_attention`: inference only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from stepvideo_virtual_npu.arguments import Arguments
from stepvideo_virtual_npu.contracts.base import (
    HALF,
    Complaints,
    OperatorContract,
    check_choice,
    check_dtypes,
    check_range,
    shape_text,
)
from stepvideo_virtual_npu.contracts.fusion_attention import longest
from stepvideo_virtual_npu.contracts.masks import MaskRules, check_cumulative, check_mask
from stepvideo_virtual_npu.layouts import RANKS, Extent, extent
from stepvideo_virtual_npu.soc import Generation, Soc

# Input layouts, and those whose output has another one, written after the underscore.
FUSED_LAYOUTS = (
    *("BSH", "BSND", "BNSD", "TND"),
    *("BNSD_BSND", "BSH_NBSD", "BSND_NBSD", "BNSD_NBSD", "TND_NTD", "NTD_TND"),
)
PROMPT_LAYOUTS = ("BSH", "BSND", "BNSD", "BNSD_BSND")
_MASKS = (torch.bool, torch.int8, torch.uint8)
_HIGH_PRECISION_MODES = 10


def input_layout(call: Arguments) -> str:
    return str(call.input_layout).partition("_")[0]


def kv_heads(call: Arguments) -> int:
    return int(call.num_key_value_heads or call.num_heads)


def key_lengths(call: Arguments, batch: int) -> list[int] | None:
    """Keys to attend per sample of a dense layout; one number holds for all."""
    lengths = call.actual_seq_lengths_kv
    if not lengths:
        return None
    return [int(n) for n in lengths] * (batch if len(lengths) == 1 else 1)


def _common(call: Arguments, soc: Soc, layouts: Sequence[str]) -> Complaints:
    if call.input_layout not in layouts:
        yield f"input_layout is {call.input_layout!r}, not one of {', '.join(layouts)}"
        return
    layout = input_layout(call)
    tensors = {"query": call.query, "key": call.key, "value": call.value}
    yield from check_dtypes(HALF, **tensors)
    wrong_rank = False
    for name, tensor in tensors.items():
        if tensor.dim() != RANKS[layout]:
            wrong_rank = True
            yield f"{name} {shape_text(tensor)} is not of layout {layout}"
        elif not tensor.is_contiguous():
            yield f"{name} is not contiguous"
    if wrong_rank:
        return
    yield from check_range("num_heads", call.num_heads, 1, 256)
    heads, shared = call.num_heads, kv_heads(call)
    if heads < 1 or shared < 1 or heads % shared != 0 or heads // shared > 64:
        yield f"{heads} query heads cannot share {shared} key heads"
        return
    for name, tensor, count in (("query", call.query, heads), ("key", call.key, shared)):
        if layout == "BSH" and tensor.shape[-1] % count != 0:
            yield f"{count} heads do not divide the {name}'s {tensor.shape[-1]}"
            return
    q = extent(call.query.shape, layout, heads)
    k = extent(call.key.shape, layout, shared)
    yield from _check_sizes(call, q, k)
    if layout in ("TND", "NTD"):
        yield from _check_ragged(call, q, k)
    else:
        yield from _check_dense(call, q, k)


def _check_sizes(call: Arguments, q: Extent, k: Extent) -> Complaints:
    if (q.heads, k.heads) != (call.num_heads, kv_heads(call)):
        yield (
            f"num_heads is {call.num_heads} and num_key_value_heads {call.num_key_value_heads}, "
            f"but query and key have {q.heads} and {k.heads} heads in layout {call.input_layout}"
        )
    ragged = input_layout(call) in ("TND", "NTD")
    if call.key.shape != call.value.shape and not ragged:
        yield f"key {shape_text(call.key)} and value {shape_text(call.value)} differ in shape"
    if q.batch != k.batch or q.width != k.width:
        yield f"query {shape_text(call.query)} and key {shape_text(call.key)} do not go together"
    yield from check_range("the batch", q.batch, 1, 65536)
    yield from check_range("the head width", q.width, 1, 512)
    num_bytes = q.width * call.query.element_size()
    if num_bytes % 16 != 0:
        yield f"a head of {q.width} takes {num_bytes} bytes, which is no multiple of 16"
    elif num_bytes % 32 != 0 and q.width > 128:
        yield f"a head of {q.width} takes {num_bytes} bytes; beyond 128 it must be a multiple of 32"
    yield from check_range("the query's length", q.length, 1, 20_000_000)


def _check_dense(call: Arguments, q: Extent, k: Extent) -> Complaints:
    square = (q.length, k.length)
    rules = MaskRules(
        shapes=[square, (1, *square), (q.batch, 1, *square), (1, 1, *square)],
        dtypes=_MASKS,
        modes=range(5),
        defined_rows=bool(getattr(call, "inner_precise", 0) & 2),
    )
    mode = call.sparse_mode % _HIGH_PRECISION_MODES
    yield from check_mask(call.atten_mask, mode, call.pre_tokens, call.next_tokens, rules)
    for name, longest_allowed in (
        ("actual_seq_lengths", q.length),
        ("actual_seq_lengths_kv", k.length),
    ):
        lengths = getattr(call, name)
        if lengths and len(lengths) not in (1, q.batch):
            yield f"{name} has {len(lengths)} entries for a batch of {q.batch}"
        if lengths and any(not 0 <= int(n) <= longest_allowed for n in lengths):
            yield f"{name} {list(lengths)} exceeds the length {longest_allowed}"


def _check_ragged(call: Arguments, q: Extent, k: Extent) -> Complaints:
    if q.width not in (128, 192):
        yield f"layout TND takes head widths 128 and 192, not {q.width}"
    ends: list[Any] = []
    for name, total in (("actual_seq_lengths", q.length), ("actual_seq_lengths_kv", k.length)):
        lengths = getattr(call, name)
        if lengths is None:
            yield f"{name} is missing; layout TND needs the cumulative lengths of both sides"
            return
        yield from check_cumulative(name, lengths, total, 4096)
        ends.append(list(lengths))
    if len(ends[0]) != len(ends[1]):
        yield f"there are {len(ends[0])} query and {len(ends[1])} key sequences"
    rules = MaskRules(
        shapes=[(longest(ends[0]), longest(ends[1]))],
        dtypes=_MASKS,
        modes=range(5),
        defined_rows=bool(getattr(call, "inner_precise", 0) & 2),
    )
    yield from check_mask(
        call.atten_mask, call.sparse_mode, call.pre_tokens, call.next_tokens, rules
    )


def _fused(call: Arguments, soc: Soc) -> Complaints:
    yield from check_choice("inner_precise", call.inner_precise, (0, 1, 2, 3))
    yield from _common(call, soc, FUSED_LAYOUTS)


def _prompt(call: Arguments, soc: Soc) -> Complaints:
    yield from _common(call, soc, PROMPT_LAYOUTS)
    if call.atten_mask is not None and call.sparse_mode == 0 and call.next_tokens == 0:
        yield (
            "next_tokens is 0, its default, which cuts all keys after the query's own; pass "
            "2147483647 for the mask alone"
        )
    if soc.generation is Generation.INFERENCE_310P:
        if kv_heads(call) != call.num_heads:
            yield "310P takes as many key heads as query heads"
        if call.sparse_mode != 0:
            yield f"310P has no sparse_mode {call.sparse_mode}"
        if call.query.dim() > 1 and max(call.query.shape[:-1]) > 65536:
            yield "310P takes sequences of at most 65536"


INFERENCE_ATTENTION_CONTRACTS = (
    OperatorContract(
        name="npu_fused_infer_attention_score",
        source="torch_npu-npu_fused_infer_attention_score.md",
        limits=_fused,
        generations=(Generation.A2, Generation.A3, Generation.ASCEND_950),
    ),
    OperatorContract(
        name="npu_prompt_flash_attention",
        source="torch_npu-npu_prompt_flash_attention.md",
        limits=_prompt,
        generations=(Generation.INFERENCE_310P, Generation.A2, Generation.A3),
    ),
)
