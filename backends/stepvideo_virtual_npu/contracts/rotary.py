"""Limits of the rotary operators."""

from __future__ import annotations

import math

from torch import Tensor

from stepvideo_virtual_npu.arguments import Arguments, has_values
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

_MOST_HEADS = 1000


def _check_table(name: str, table: Tensor, x: Tensor) -> Complaints:
    if table.dim() != x.dim() or any(
        size not in (1, full) for size, full in zip(table.shape[:-1], x.shape[:-1], strict=False)
    ):
        yield f"{name} {shape_text(table)} does not broadcast to the input {shape_text(x)}"
    elif table.shape[-1] != x.shape[-1]:
        yield (
            f"{name} is {table.shape[-1]} wide; it must be as wide as the input's head, "
            f"{x.shape[-1]}, each angle written twice"
        )
    if has_values(table) and bool((table.abs() > 1).any()):
        yield f"{name} has values beyond 1, so it is no table of cosines or sines"


def _rotary_mul(call: Arguments, soc: Soc) -> Complaints:
    x, cos, sin = call.input, call.r1, call.r2
    yield from check_choice("rotary_mode", call.rotary_mode, ("half", "interleave"))
    yield from check_dtypes(FLOATS, input=x)
    if x.dim() not in (3, 4):
        yield f"the input {shape_text(x)} has {x.dim()} dimensions, not 3 or 4"
        return
    width = x.shape[-1]
    if width % 2 != 0:
        yield f"the head width {width} is odd"
    yield from check_range("the head width", width, 2, 895)
    for name, table in (("r1", cos), ("r2", sin)):
        yield from _check_table(name, table, x)
    if cos.shape != sin.shape:
        yield f"r1 {shape_text(cos)} and r2 {shape_text(sin)} differ in shape"
    if cos.dim() == x.dim() and cos.shape[-1] == width:
        yield from _check_broadcast(call, x, cos)
    if call.rotate is not None and list(call.rotate.shape) != [width, width]:
        yield f"rotate has shape {shape_text(call.rotate)}, not [{width}, {width}]"


def _check_broadcast(call: Arguments, x: Tensor, cos: Tensor) -> Complaints:
    """The axis of the tables that runs with the input is the sequence; the rest are B and N."""
    varying = [axis for axis in range(x.dim() - 1) if cos.shape[axis] != 1]
    if call.rotary_mode == "interleave":
        if len(varying) > 1:
            yield f"mode interleave takes tables of one varying axis, not {shape_text(cos)}"
        others = [x.shape[axis] for axis in range(x.dim() - 1) if axis not in varying]
        if varying and math.prod(others) >= _MOST_HEADS:
            yield f"batch times heads is {math.prod(others)}, not below {_MOST_HEADS}"
    elif len(varying) == 1:
        for axis in range(x.dim() - 1):
            if axis not in varying and x.shape[axis] >= _MOST_HEADS:
                yield f"axis {axis} (batch or heads) is {x.shape[axis]}, not below {_MOST_HEADS}"


def _apply_rotary(call: Arguments, soc: Soc) -> Complaints:
    newest = soc.generation is Generation.ASCEND_950
    layouts = ("BSND", "TND", "BNSD", "SBND") if newest else ("BSND", "TND")
    modes = ("half", "interleave", "quarter") if newest else ("half",)
    yield from check_choice("layout", call.layout, layouts)
    yield from check_choice("rotary_mode", call.rotary_mode, modes)
    tensors = {name: getattr(call, name) for name in ("query", "key", "cos", "sin")}
    yield from check_dtypes(FLOATS, **tensors)
    rank = 3 if call.layout == "TND" else 4
    if any(tensor.dim() != rank for tensor in tensors.values()):
        yield f"layout {call.layout} takes tensors of {rank} dimensions"
        return
    width = call.query.shape[-1]
    if not newest:
        yield from check_choice("the head width", width, (64, 128))
    for name in ("cos", "sin"):
        table = tensors[name]
        wanted = list(call.query.shape)
        wanted[1 if call.layout in ("TND", "BNSD") else 2] = 1
        if list(table.shape) != wanted:
            yield f"{name} has shape {shape_text(table)}, not {wanted}: batches are not broadcast"


ROTARY_CONTRACTS = (
    OperatorContract(
        name="npu_rotary_mul", source="torch_npu-npu_rotary_mul.md", limits=_rotary_mul
    ),
    OperatorContract(
        name="npu_apply_rotary_pos_emb",
        source="torch_npu-npu_apply_rotary_pos_emb.md",
        limits=_apply_rotary,
    ),
)
