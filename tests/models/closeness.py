"""How near two tensors are."""

from __future__ import annotations

from torch import Tensor


def relative_error(result: Tensor, truth: Tensor) -> float:
    """Largest absolute difference over the truth's largest absolute value."""
    assert result.shape == truth.shape, (result.shape, truth.shape)
    difference = (result.double() - truth.double()).abs().max()
    return float(difference / truth.double().abs().max())
