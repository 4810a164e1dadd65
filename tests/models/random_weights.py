"""Weights from a seed, so that a golden needs no weight file."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def random_weights(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """float32 tensors for sorted keys: N(0, 1/fan_in) matrices, norms about 1, biases about 0."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for key in sorted(shapes):
        values = torch.randn(shapes[key], generator=generator)
        if values.dim() > 1:
            values *= values[0].numel() ** -0.5
        else:
            values = 0.2 * values + (1.0 if "norm" in key and key.endswith("weight") else 0.0)
        weights[key] = values
    return weights
