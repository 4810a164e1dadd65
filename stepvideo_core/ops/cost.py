"""What a call must at least compute and move: the numerators of every rate and roofline."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Cost:
    """Work of one call, counted from its shapes, whoever computes it.

    flops: operations of the matrix units, a multiply-add being two: products, convolutions and the
        two products of an attention. Elementwise arithmetic is not in it: it runs on other units
        and has never bounded one of these operators.
    num_bytes: the inputs that the result depends on, read once, plus the results, written once.
        A lower bound: an implementation may read twice, none can do with less.
    """

    flops: int = 0
    num_bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flops + other.flops, self.num_bytes + other.num_bytes)

    def __mul__(self, times: int) -> Cost:
        return Cost(self.flops * times, self.num_bytes * times)

    @property
    def intensity(self) -> float:
        """FLOP per byte; 0 for an operator that only moves data."""
        return self.flops / self.num_bytes if self.num_bytes else 0.0

    def roof_seconds(self, flops_per_second: float, bytes_per_second: float) -> float:
        """The least time on a device with these rates, computing and moving at once."""
        return max(self.flops / flops_per_second, self.num_bytes / bytes_per_second)


def tensor_bytes(*tensors: Tensor | None) -> int:
    """Bytes of the elements of some tensors, gaps between them left out."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors if tensor is not None)
