"""What a case is: arguments for one operator at one site, in any dtype and layout.

A case makes its inputs in float64 from a seed; the suite casts them to the dtype under test, so
that every implementation, device and dtype sees the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from stepvideo_core.ops import OpContract, Site


class Inputs:
    """Random float64 tensors from a seed."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, scale: float = 1.0, mean: float = 0.0) -> Tensor:
        noise = torch.randn(shape, generator=self._generator, dtype=torch.float64)
        return noise * scale + mean


@dataclass(frozen=True, kw_only=True)
class Case:
    """One set of arguments for one operator at one site.

    make: builds the arguments; tensors are float64 on the CPU. keep_wide: indices of tensor
    arguments that the contract wants in float32 (float64 for float64) whatever the dtype.
    layout: applied to every activation after casting, to test strides. poisoned: index of a tensor
    argument whose first element becomes NaN, which no implementation may hide.
    """

    name: str
    op: OpContract[Any]
    site: Site
    make: Callable[[Inputs], tuple[Any, ...]]
    keep_wide: frozenset[int] = frozenset()
    layout: Callable[[Tensor], Tensor] = field(default=lambda tensor: tensor)
    poisoned: int | None = None
    seed: int = 0

    @property
    def id(self) -> str:
        return f"{self.op.name}-{self.site.name}-{self.name}"

    def arguments(self, dtype: torch.dtype, device: torch.device) -> tuple[Any, ...]:
        """The arguments in a dtype on a device."""
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        result = []
        for index, value in enumerate(self.make(Inputs(self.seed))):
            if isinstance(value, Tensor):
                value = value.to(wide if index in self.keep_wide else dtype).to(device)
                if value.dim() > 1 and index not in self.keep_wide:
                    value = self.layout(value)
                if index == self.poisoned:
                    value.view(-1)[0] = math.nan
            result.append(value)
        return tuple(result)


def strided(tensor: Tensor) -> Tensor:
    """The same values with gaps between them: every second element of a larger buffer."""
    buffer = tensor.new_full((*tensor.shape[:-1], 2 * tensor.shape[-1]), math.nan)
    buffer[..., ::2] = tensor
    return buffer[..., ::2]


def channels_last(tensor: Tensor) -> Tensor:
    """The same values with channels innermost in memory.

    By moving the axis: not every device can make that memory format out of another.
    """
    if tensor.dim() < 4:
        return tensor
    return tensor.movedim(1, -1).contiguous().movedim(-1, 1)
