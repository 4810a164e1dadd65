"""Arguments for a recorded call: random values of the right scale, and copies for a cold cache."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stepvideo_bench.calls import Call, TensorSpec


def make_arguments(call: Call, device: torch.device, seed: int = 0) -> tuple[Any, ...]:
    """The arguments of a call in the recorded dtypes.

    Weights are scaled by their fan-in and activations are standard normal, so that results are of
    order one at any depth; rotary tables are angles' cosines and sines with the contract's
    repetition. Video activations are channels-last, as the plans of every device so far keep them.
    """
    generator = torch.Generator().manual_seed(seed)
    named = dict(zip(call.op.parameters, call.arguments, strict=True))
    angles: Tensor | None = None
    values = []
    for name, value in named.items():
        if isinstance(value, TensorSpec):
            if name in ("cos_SD", "sin_SD"):
                if angles is None:
                    angles = _angles(value.shape[0], named["axes"], generator)
                made = angles.cos() if name == "cos_SD" else angles.sin()
            elif name.startswith("slopes"):
                made = torch.rand(value.shape, generator=generator)
            else:
                made = _noise(name, value.shape, generator)
            value = _in_layout(made.to(value.dtype).to(device), name)
        values.append(value)
    return tuple(values)


def _noise(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    values = torch.randn(shape, generator=generator)
    if "weight" not in name:
        return values
    if len(shape) == 1:
        return values.mul_(0.1).add_(1)
    return values.mul_(values[0].numel() ** -0.5)


def _angles(tokens: int, axes: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """[tokens, sum(axes)]: in each group the second half repeats the first."""
    halves = (torch.randn(tokens, width // 2, generator=generator) for width in axes)
    return torch.cat([half.repeat(1, 2) for half in halves], dim=1)


def _in_layout(value: Tensor, name: str) -> Tensor:
    if name.endswith("_BCTHW"):
        return value.contiguous(memory_format=torch.channels_last_3d)
    if name.endswith("_NCHW"):
        return value.contiguous(memory_format=torch.channels_last)
    return value


def copies(arguments: tuple[Any, ...], count: int) -> list[tuple[Any, ...]]:
    """`count` sets of equal arguments in different memory, the given one first."""
    return [arguments] + [
        tuple(value.clone() if isinstance(value, Tensor) else value for value in arguments)
        for _ in range(count - 1)
    ]
