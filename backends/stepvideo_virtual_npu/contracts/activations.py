"""Limits of the activation functions."""

from __future__ import annotations

from stepvideo_virtual_npu.arguments import Arguments
from stepvideo_virtual_npu.contracts.base import (
    FLOATS,
    Complaints,
    OperatorContract,
    check_choice,
    check_dtypes,
    shape_text,
)
from stepvideo_virtual_npu.soc import Generation, Soc

_FORMS = ("none", "tanh")


def _elementwise(call: Arguments, soc: Soc) -> Complaints:
    yield from check_dtypes(FLOATS, input=call.input)


def _gelu(call: Arguments, soc: Soc) -> Complaints:
    yield from _elementwise(call, soc)
    yield from check_choice("approximate", call.approximate, _FORMS)


def _check_halves(call: Arguments, dim: int) -> Complaints:
    x = call.input
    if not -x.dim() <= dim < x.dim():
        yield f"dim is {dim}, but the input {shape_text(x)} has {x.dim()} dimensions"
    elif x.shape[dim] % 2 != 0:
        yield f"dimension {dim} of the input {shape_text(x)} is odd and has no two halves"


def _gelu_mul(call: Arguments, soc: Soc) -> Complaints:
    x = call.input
    yield from _gelu(call, soc)
    yield from _check_halves(call, -1)
    if x.shape[-1] > 1024:
        yield f"the last dimension is {x.shape[-1]}, more than 1024"
    rows = x.numel() // max(x.shape[-1], 1)
    if rows > 200_000:
        yield f"the input has {rows} rows, more than 200000"


def _geglu(call: Arguments, soc: Soc) -> Complaints:
    yield from _elementwise(call, soc)
    yield from check_choice("approximate", call.approximate, (0, 1))
    yield from _check_halves(call, call.dim)


def _swiglu(call: Arguments, soc: Soc) -> Complaints:
    yield from _elementwise(call, soc)
    yield from _check_halves(call, call.dim)
    if not call.input.is_contiguous():
        yield "the input is not contiguous"


_FROM_A2 = (Generation.A2, Generation.A3, Generation.ASCEND_950)

ACTIVATION_CONTRACTS = (
    OperatorContract(name="npu_gelu", source="torch_npu-npu_gelu.md", limits=_gelu),
    OperatorContract(
        name="npu_fast_gelu",
        source="torch_npu-npu_fast_gelu.md",
        limits=_elementwise,
        generations=_FROM_A2,  # 310P computes another formula under this name
    ),
    OperatorContract(name="npu_gelu_mul", source="torch_npu-npu_gelu_mul.md", limits=_gelu_mul),
    OperatorContract(name="npu_geglu", source="torch_npu-npu_geglu.md", limits=_geglu),
    OperatorContract(name="npu_swiglu", source="torch_npu-npu_swiglu.md", limits=_swiglu),
    OperatorContract(name="npu_silu", source="torch_npu-npu_silu.md", limits=_elementwise),
)
