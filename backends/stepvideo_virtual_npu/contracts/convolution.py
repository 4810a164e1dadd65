"""Limits of the convolutions under names of their own; F.conv2d and F.conv3d are the better way."""

from __future__ import annotations

from stepvideo_virtual_npu.arguments import Arguments
from stepvideo_virtual_npu.contracts.base import (
    FLOATS,
    Complaints,
    OperatorContract,
    check_dtypes,
    shape_text,
)
from stepvideo_virtual_npu.soc import Generation, Soc


def _convolution(call: Arguments, soc: Soc, spatial: tuple[int, ...]) -> Complaints:
    x, weight, bias = call.input, call.weight, call.bias
    yield from check_dtypes(FLOATS, input=x, weight=weight)
    dims = x.dim() - 2
    if dims not in spatial or weight.dim() != x.dim():
        yield f"the input {shape_text(x)} and weight {shape_text(weight)} do not go together"
        return
    groups = call.groups
    if groups < 1 or x.shape[1] != weight.shape[1] * groups or weight.shape[0] % groups != 0:
        yield (
            f"{x.shape[1]} input channels in {groups} groups do not go with a weight "
            f"{shape_text(weight)}"
        )
    if bias is not None and list(bias.shape) != [weight.shape[0]]:
        yield f"bias has shape {shape_text(bias)}, not [{weight.shape[0]}]"
    for name, least in (("stride", 1), ("padding", 0), ("dilation", 1)):
        values = list(getattr(call, name))
        if len(values) != dims or any(value < least for value in values):
            yield f"{name} is {values}; it must be {dims} numbers of at least {least}"


def _conv3d(call: Arguments, soc: Soc) -> Complaints:
    yield from _convolution(call, soc, (3,))


def _conv2d_or_3d(call: Arguments, soc: Soc) -> Complaints:
    yield from _convolution(call, soc, (2, 3))


_WITH_ACLOP = (Generation.INFERENCE_310P, Generation.A2, Generation.A3)

CONVOLUTION_CONTRACTS = (
    OperatorContract(
        name="npu_conv3d",
        source="torch_npu-npu_conv3d.md",
        limits=_conv3d,
        generations=_WITH_ACLOP,
    ),
    OperatorContract(
        name="npu_convolution", source="torch_npu-npu_convolution.md", limits=_conv2d_or_3d
    ),
)
