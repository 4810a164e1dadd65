"""Limits of `npu_fusion_attention`, v2 and v3: attention as training uses it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stepvideo_virtual_npu.arguments import Arguments, has_values
from stepvideo_virtual_npu.contracts.base import (
    FLOATS,
    MASKS,
    Complaints,
    OperatorContract,
    check_absent,
    check_choice,
    check_dtypes,
    check_range,
    shape_text,
)
from stepvideo_virtual_npu.contracts.masks import MaskRules, check_cumulative, check_mask
from stepvideo_virtual_npu.layouts import RANKS, Extent, extent
from stepvideo_virtual_npu.soc import Generation, Soc

LAYOUTS = ("BSH", "SBH", "BSND", "BNSD", "TND")
_DEFINES_MASKED_ROWS = 2


def extents(call: Arguments) -> tuple[Extent, Extent, Extent]:
    """Sizes of query, key and value of a call whose layout and ranks are right.

    The key's heads follow from the query's head width, which the two share.
    """
    layout, heads = call.input_layout, call.head_num
    q = extent(call.query.shape, layout, heads)
    kv_heads = max(call.key.shape[-1] // max(q.width, 1), 1) if RANKS[layout] == 3 else heads
    return (
        q,
        extent(call.key.shape, layout, kv_heads),
        extent(call.value.shape, layout, kv_heads),
    )


def cumulative(lengths: Tensor | Sequence[int] | None) -> list[int] | None:
    """The lengths as integers; None if there are none or their values cannot be read."""
    if isinstance(lengths, Tensor):
        return [int(end) for end in lengths] if has_values(lengths) else None
    return None if lengths is None else list(lengths)


def _limits(call: Arguments, soc: Soc) -> Complaints:
    layout = call.input_layout
    if layout not in LAYOUTS:
        yield f"input_layout is {layout!r}, not one of {', '.join(LAYOUTS)}"
        return
    yield from check_dtypes(FLOATS, query=call.query, key=call.key, value=call.value, pse=call.pse)
    wrong_rank = False
    for name in ("query", "key", "value"):
        tensor = getattr(call, name)
        if tensor.dim() != RANKS[layout]:
            wrong_rank = True
            yield f"{name} {shape_text(tensor)} is not of layout {layout}"
    if wrong_rank:
        return
    yield from check_range("head_num", call.head_num, 1, 256)
    if call.head_num < 1 or (
        layout in ("BSH", "SBH") and call.query.shape[-1] % call.head_num != 0
    ):
        yield f"head_num {call.head_num} does not divide the query's {call.query.shape[-1]}"
        return
    q, k, v = extents(call)
    yield from _check_sizes(call, q, k, v)
    yield from _check_options(call)
    if layout == "TND":
        yield from _check_ragged(call, q, k)
    else:
        yield from _check_dense(call, q, k)


def _check_sizes(call: Arguments, q: Extent, k: Extent, v: Extent) -> Complaints:
    if q.heads != call.head_num:
        yield (
            f"head_num is {call.head_num}, but query {shape_text(call.query)} has {q.heads} heads "
            f"in layout {call.input_layout}"
        )
    if k.heads != v.heads or q.heads % k.heads != 0:
        yield f"{q.heads} query heads do not go with {k.heads} key and {v.heads} value heads"
    if not q.batch == k.batch == v.batch:
        yield f"query, key and value have batches {q.batch}, {k.batch} and {v.batch}"
    if k.length != v.length:
        yield f"key and value have lengths {k.length} and {v.length}"
    if q.width != k.width or k.width < v.width:
        yield (
            f"head widths are {q.width}, {k.width} and {v.width} for query, key and value; the "
            "first two must be equal and the last no larger"
        )
    yield from check_range("the head width", q.width, 1, 768)
    yield from check_range("the batch", q.batch, 1, 2_000_000)
    for name, length in (("query", q.length), ("key", k.length)):
        yield from check_range(f"the {name}'s length", length, 1, 1_000_000)


def _check_options(call: Arguments) -> Complaints:
    yield from check_absent(call, "is reserved", "padding_mask")
    yield from check_choice("inner_precise", call.inner_precise, (0, _DEFINES_MASKED_ROWS))
    if not 0.0 < call.keep_prob <= 1.0:
        yield f"keep_prob is {call.keep_prob}, not within (0, 1]"
    yield from check_choice("softmax_layout", call.softmax_layout, ("", "TND"))
    if call.softmax_layout == "TND" and call.input_layout != "TND":
        yield "softmax_layout TND goes with input_layout TND only"
    sink = call.sink
    if sink is not None and (sink.dtype != torch.float32 or list(sink.shape) != [call.head_num]):
        yield f"sink must be float32 of shape [{call.head_num}]"


def _window(call: Arguments) -> tuple[int, int]:
    # v1 and v3 spell it so; v2 does not.
    if hasattr(call, "pre_tockens"):
        return call.pre_tockens, call.next_tockens
    return call.pre_tokens, call.next_tokens


def _check_dense(call: Arguments, q: Extent, k: Extent) -> Complaints:
    for name in ("actual_seq_qlen", "actual_seq_kvlen"):
        lengths = getattr(call, name)
        if lengths is not None and len(lengths) > 0:
            yield (
                f"{name} goes with layout TND only; with {call.input_layout} the device would take "
                "the ragged kernel"
            )
    square = (q.length, k.length)
    rules = MaskRules(
        shapes=[square, *((b, n, *square) for b, n in ((q.batch, q.heads), (q.batch, 1), (1, 1)))],
        dtypes=MASKS,
        modes=range(7),
        defined_rows=call.inner_precise == _DEFINES_MASKED_ROWS,
    )
    yield from check_mask(call.atten_mask, call.sparse_mode, *_window(call), rules)
    if call.pse is not None:
        allowed = [[b, q.heads, *square] for b in (1, q.batch)]
        if list(call.pse.shape) not in allowed:
            yield f"pse has shape {shape_text(call.pse)}, not {' or '.join(map(str, allowed))}"


def _check_ragged(call: Arguments, q: Extent, k: Extent) -> Complaints:
    ends = {}
    for name, total in (("actual_seq_qlen", q.length), ("actual_seq_kvlen", k.length)):
        given = getattr(call, name)
        if given is None:
            yield f"{name} is missing; layout TND needs the cumulative lengths of both sides"
            return
        read = cumulative(given)
        if read is not None:
            ends[name] = read
            yield from check_cumulative(name, read, total, 2048)
    if len(ends) < 2:
        return
    q_ends, k_ends = ends.values()
    if len(q_ends) != len(k_ends):
        yield f"there are {len(q_ends)} query and {len(k_ends)} key sequences"
        return
    rules = MaskRules(
        shapes=[(longest(q_ends), longest(k_ends))],
        dtypes=MASKS,
        modes=(0, 1, 2, 3, 4, 6, 7, 8),
        defined_rows=False,
    )
    yield from check_mask(call.atten_mask, call.sparse_mode, *_window(call), rules)


def longest(ends: Sequence[int]) -> int:
    """The length of the longest sequence."""
    return max(end - start for start, end in zip([0, *ends], ends, strict=False))


_TRAINING = (Generation.A2, Generation.A3, Generation.ASCEND_950)

FUSION_ATTENTION_CONTRACTS = tuple(
    OperatorContract(name=name, source=page, limits=_limits, generations=_TRAINING)
    for name, page in (
        ("npu_fusion_attention", "torch_npu-npu_fusion_attention.md"),
        ("npu_fusion_attention_v2", "torch_npu-npu_fusion_attention_v2.md"),
        ("npu_fusion_attention_v3", "torch_npu-npu_fusion_attention_v3.md"),
    )
)
