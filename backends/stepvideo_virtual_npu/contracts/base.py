"""What a contract is: an operator's documented limits, checked on the arguments of a call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from stepvideo_virtual_npu.arguments import Arguments
from stepvideo_virtual_npu.errors import ContractViolation
from stepvideo_virtual_npu.soc import Generation, Soc

Complaints = Iterator[str]

HALF = (torch.float16, torch.bfloat16)
FLOATS = (torch.float16, torch.bfloat16, torch.float32)
MASKS = (torch.bool, torch.uint8)


@dataclass(frozen=True, kw_only=True)
class OperatorContract:
    """The limits of one `npu::` operator, beyond what its schema says.

    limits: yields one complaint per limit that a call breaks. It reads shapes, dtypes and options,
    and elements only of tensors that have them (`arguments.has_values`). source: the vendor's
    documentation page the limits are from. generations: where the operator exists.
    """

    name: str
    source: str
    limits: Callable[[Arguments, Soc], Complaints]
    generations: tuple[Generation, ...] = tuple(Generation)

    def check(self, call: Arguments, soc: Soc) -> None:
        """Raise ContractViolation with every complaint in one sentence."""
        complaints = list(self._complaints(call, soc))
        if complaints:
            raise ContractViolation(
                f"npu::{self.name} on {soc.name}: {'; '.join(complaints)} (see {self.source})"
            )

    def _complaints(self, call: Arguments, soc: Soc) -> Complaints:
        if soc.generation not in self.generations:
            where = ", ".join(generation.value for generation in self.generations)
            yield f"it exists on {where} only"
            return
        tensors = call.tensors()
        if not soc.bfloat16 and any(t.dtype == torch.bfloat16 for t in tensors.values()):
            yield f"{soc.name} has no bfloat16; use float16"
        yield from self.limits(call, soc)


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def check_dtypes(allowed: tuple[torch.dtype, ...], **tensors: Tensor | None) -> Complaints:
    """Every given tensor has one of the allowed dtypes, and all have the same."""
    given = {name: tensor.dtype for name, tensor in tensors.items() if tensor is not None}
    for name, dtype in given.items():
        if dtype not in allowed:
            names = ", ".join(dtype_name(known) for known in allowed)
            yield f"{name} is {dtype_name(dtype)}, not one of {names}"
    if len(set(given.values())) > 1:
        listed = ", ".join(f"{name} {dtype_name(dtype)}" for name, dtype in given.items())
        yield f"its tensors have different dtypes: {listed}"


def check_range(name: str, value: int, low: int, high: int) -> Complaints:
    if not low <= value <= high:
        yield f"{name} is {value}, not within {low} to {high}"


def check_choice(name: str, value: object, allowed: tuple[object, ...]) -> Complaints:
    if value not in allowed:
        yield f"{name} is {value!r}, not one of {', '.join(map(repr, allowed))}"


def check_absent(call: Arguments, reason: str, *names: str) -> Complaints:
    """Parameters that the documentation reserves, or that stand for what is not offered."""
    for name in names:
        if getattr(call, name) is not None:
            yield f"{name} is given, but {reason}"


def shape_text(tensor: Tensor) -> str:
    return f"[{', '.join(map(str, tensor.shape))}]"
