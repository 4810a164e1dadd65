"""Percentages with the uncertainty that the number of videos leaves."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Z95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""


@dataclass(frozen=True)
class Proportion:
    """`successes` out of `count` independent trials."""

    successes: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.successes <= self.count:
            raise ValueError(f"{self.successes} of {self.count} is no proportion")

    @classmethod
    def of(cls, outcomes: Iterable[bool]) -> Proportion:
        """Count the true ones."""
        values = list(outcomes)
        return cls(sum(values), len(values))

    @property
    def rate(self) -> float | None:
        """Share of successes from 0 to 1; None without trials."""
        return self.successes / self.count if self.count else None

    def interval(self, z: float = Z95) -> tuple[float, float]:
        """Wilson's score interval for the true rate; (0, 1) without trials.

        Unlike the normal approximation it stays inside [0, 1] and keeps its width when every trial
        succeeded. E. B. Wilson, Journal of the American Statistical Association 22 (1927).
        """
        if not self.count:
            return 0.0, 1.0
        rate, weight = self.successes / self.count, z * z / self.count
        centre = (rate + weight / 2) / (1 + weight)
        spread = math.sqrt(weight * rate * (1 - rate) + weight * weight / 4) / (1 + weight)
        # Rounding must not leave the rate itself outside.
        return max(0.0, min(rate, centre - spread)), min(1.0, max(rate, centre + spread))

    def as_json(self) -> dict[str, Any]:
        """{successes, count, rate, interval95}."""
        return {
            "successes": self.successes,
            "count": self.count,
            "rate": self.rate,
            "interval95": list(self.interval()) if self.count else None,
        }


def mean(values: Iterable[float]) -> float | None:
    """The arithmetic mean; None of nothing."""
    listed = list(values)
    return math.fsum(listed) / len(listed) if listed else None
