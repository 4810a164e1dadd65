"""Limits of the normalisation operators."""

from __future__ import annotations

import torch
from torch import Tensor

from stepvideo_virtual_npu.arguments import Arguments
from stepvideo_virtual_npu.contracts.base import (
    FLOATS,
    HALF,
    Complaints,
    OperatorContract,
    check_dtypes,
    check_range,
    dtype_name,
    shape_text,
)
from stepvideo_virtual_npu.soc import Generation, Soc

_WITH_ACLOP = (Generation.INFERENCE_310P, Generation.A2, Generation.A3)


def _check_trailing(name: str, weight: Tensor, x: Tensor) -> Complaints:
    if weight.dim() < 1 or weight.shape != x.shape[-weight.dim() :]:
        yield f"{name} {shape_text(weight)} is not the end of the input's shape {shape_text(x)}"


def _rms_norm(call: Arguments, soc: Soc) -> Complaints:
    x, gamma = call.input, call.gamma
    yield from check_dtypes(FLOATS, input=x)
    yield from check_dtypes(FLOATS, gamma=gamma)
    mixed = x.dtype in HALF and gamma.dtype == torch.float32
    if x.dtype != gamma.dtype and not mixed:
        yield f"an input in {dtype_name(x.dtype)} takes no gamma in {dtype_name(gamma.dtype)}"
    yield from _check_trailing("gamma", gamma, x)
    yield from check_range("the number of dimensions", x.dim(), 1, 8)
    row = x.shape[-1] * x.element_size()
    if soc.generation is Generation.INFERENCE_310P and row < 32:
        yield f"the last dimension takes {row} bytes; 310P needs at least 32"


def _gemma_rms_norm(call: Arguments, soc: Soc) -> Complaints:
    yield from check_dtypes(FLOATS, input=call.input, gamma=call.gamma)
    yield from _check_trailing("gamma", call.gamma, call.input)


def _add_rms_norm(call: Arguments, soc: Soc) -> Complaints:
    yield from check_dtypes(FLOATS, x1=call.x1, x2=call.x2, gamma=call.gamma)
    yield from _check_trailing("gamma", call.gamma, call.x1)
    if call.x1.shape != call.x2.shape:
        yield f"x1 {shape_text(call.x1)} and x2 {shape_text(call.x2)} differ in shape"


def _layer_norm_eval(call: Arguments, soc: Soc) -> Complaints:
    """The operator resizes a weight of another shape, so that per-sample weights [B, 1, D] lose
    all samples but the first without a word."""
    shape = list(call.normalized_shape)
    yield from check_dtypes(FLOATS, input=call.input, weight=call.weight, bias=call.bias)
    if list(call.input.shape[-len(shape) :]) != shape:
        yield f"normalized_shape {shape} is not the end of the input {shape_text(call.input)}"
    for name in ("weight", "bias"):
        tensor = getattr(call, name)
        if tensor is not None and list(tensor.shape) != shape:
            yield (
                f"{name} has shape {shape_text(tensor)}, not {shape}; the device would use its "
                "first elements for every sample"
            )


def _add_layer_norm(call: Arguments, soc: Soc) -> Complaints:
    yield from check_dtypes(FLOATS, x1=call.x1, x2=call.x2)
    yield from check_dtypes(FLOATS, gamma=call.gamma, beta=call.beta)
    if call.x1.shape != call.x2.shape:
        yield f"x1 {shape_text(call.x1)} and x2 {shape_text(call.x2)} differ in shape"
    for name in ("gamma", "beta"):
        weight = getattr(call, name)
        if list(weight.shape) != [call.x1.shape[-1]]:
            yield f"{name} has shape {shape_text(weight)}, not [{call.x1.shape[-1]}]"


def _deep_norm(call: Arguments, soc: Soc) -> Complaints:
    tensors = {name: getattr(call, name) for name in ("x", "gx", "beta", "gamma")}
    yield from check_dtypes(FLOATS, **tensors)
    if call.x.shape != call.gx.shape:
        yield f"x {shape_text(call.x)} and gx {shape_text(call.gx)} differ in shape"
    for name in ("beta", "gamma"):
        yield from _check_trailing(name, tensors[name], call.x)


def _check_groups(x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None) -> Complaints:
    yield from check_range("the number of dimensions", x.dim(), 2, 8)
    if x.dim() < 2:
        return
    channels = x.shape[1]
    if groups < 1 or channels % groups != 0:
        yield f"{groups} groups do not divide {channels} channels"
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None and list(tensor.shape) != [channels]:
            yield f"{name} has shape {shape_text(tensor)}, not [{channels}]"


def _group_norm_silu(call: Arguments, soc: Soc) -> Complaints:
    x = call.input
    yield from check_dtypes(FLOATS, input=x)
    yield from check_dtypes(FLOATS, weight=call.weight, bias=call.bias)
    yield from _check_groups(x, call.group, call.weight, call.bias)
    for name in ("weight", "bias"):
        tensor = getattr(call, name)
        if tensor is not None and tensor.dtype not in (x.dtype, torch.float32):
            yield (
                f"{name} in {dtype_name(tensor.dtype)} is less precise than, or foreign to, an "
                f"input in {dtype_name(x.dtype)}"
            )
    if call.eps <= 0:
        yield f"eps is {call.eps}, not positive"


def _group_norm_swish(call: Arguments, soc: Soc) -> Complaints:
    yield from check_dtypes(FLOATS, input=call.input, weight=call.weight, bias=call.bias)
    yield from _check_groups(call.input, call.num_groups, call.weight, call.bias)


NORM_CONTRACTS = (
    OperatorContract(name="npu_rms_norm", source="torch_npu-npu_rms_norm.md", limits=_rms_norm),
    OperatorContract(
        name="npu_gemma_rms_norm",
        source="torch_npu-npu_gemma_rms_norm.md",
        limits=_gemma_rms_norm,
    ),
    OperatorContract(
        name="npu_add_rms_norm", source="torch_npu-npu_add_rms_norm.md", limits=_add_rms_norm
    ),
    OperatorContract(
        name="npu_layer_norm_eval",
        source="torch_npu-npu_layer_norm_eval.md",
        limits=_layer_norm_eval,
        generations=_WITH_ACLOP,
    ),
    OperatorContract(
        name="npu_add_layer_norm",
        source="torch_npu-npu_add_layer_norm.md",
        limits=_add_layer_norm,
    ),
    OperatorContract(name="npu_deep_norm", source="torch_npu-npu_deep_norm.md", limits=_deep_norm),
    OperatorContract(
        name="npu_group_norm_silu",
        source="torch_npu-npu_group_norm_silu.md",
        limits=_group_norm_silu,
    ),
    OperatorContract(
        name="npu_group_norm_swish",
        source="torch_npu-npu_group_norm_swish.md",
        limits=_group_norm_swish,
    ),
)
