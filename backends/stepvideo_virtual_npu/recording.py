"""What was called: operators with the shapes, dtypes and options they got."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stepvideo_virtual_npu.arguments import bind


@dataclass(frozen=True, kw_only=True)
class TensorFacts:
    """What a record keeps of a tensor."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call that reached a device kernel or, for meta and fake tensors, a shape function.

    op: qualified name with its overload, e.g. `npu::npu_fusion_attention` or `aten::add.Tensor`.
    arguments: by parameter name, defaults included; tensors as TensorFacts. meta: nothing was
    computed.
    """

    op: str
    arguments: dict[str, Any]
    meta: bool


_recordings: list[list[Call]] = []


@contextlib.contextmanager
def recorded_calls() -> Iterator[list[Call]]:
    """The calls made inside the block, in order, whether they succeed or are refused.

    Operators that torch decomposes do not appear; what they decompose into does.
    """
    calls: list[Call] = []
    _recordings.append(calls)
    try:
        yield calls
    finally:
        _recordings.remove(calls)


def record(op: torch._ops.OpOverload, args: Any, kwargs: Any, *, meta: bool) -> None:
    """Add a call to every open recording."""
    if _recordings:
        arguments = {
            name: _facts(value) for name, value in vars(bind(op._schema, args, kwargs)).items()
        }
        call = Call(op=op.name(), arguments=arguments, meta=meta)
        for calls in _recordings:
            calls.append(call)


def recorded(op: torch._ops.OpOverload, kernel: Callable[..., Any]) -> Callable[..., Any]:
    """`kernel`, with a record of each call of it as a call of `op`."""

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        record(op, args, kwargs, meta=False)
        return kernel(*args, **kwargs)

    return wrapper


def _facts(value: Any) -> Any:
    if isinstance(value, Tensor):
        return TensorFacts(shape=tuple(value.shape), stride=value.stride(), dtype=value.dtype)
    if isinstance(value, list | tuple):
        return [_facts(item) for item in value]
    return value
