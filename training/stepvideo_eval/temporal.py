"""Smoothness over time: how much changes from frame to frame, and whether chunk seams show."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Smoothness:
    """Mean absolute change of the pixel values (0 to 1) between neighbouring frames.

    mean, largest: over all pairs of neighbours. inside, at_seams: over the pairs within a chunk and
    over those that straddle two; None where there is no such pair.
    """

    mean: float
    largest: float
    inside: float | None
    at_seams: float | None

    @property
    def seam_ratio(self) -> float | None:
        """at_seams / inside: about 1 if the seams do not show; None without seams or motion."""
        if self.at_seams is None or not self.inside:
            return None
        return self.at_seams / self.inside

    def as_json(self) -> dict[str, Any]:
        """The four figures and the ratio."""
        return {
            "mean": self.mean,
            "largest": self.largest,
            "inside": self.inside,
            "at_seams": self.at_seams,
            "seam_ratio": self.seam_ratio,
        }


def smoothness(video_THWC: Tensor, chunk: int) -> Smoothness | None:
    """Measure a video that was decoded in chunks; None for a single frame.

    video_THWC: uint8 [T, H, W, 3]. chunk: frames decoded together (17).
    """
    changes = frame_changes(video_THWC)
    if not len(changes):
        return None
    # Change i is the one from frame i to frame i + 1.
    seam = torch.arange(1, len(changes) + 1) % chunk == 0
    return Smoothness(
        mean=float(changes.mean()),
        largest=float(changes.max()),
        inside=float(changes[~seam].mean()) if bool((~seam).any()) else None,
        at_seams=float(changes[seam].mean()) if bool(seam.any()) else None,
    )


def frame_changes(video_THWC: Tensor) -> Tensor:
    """Mean absolute change from each frame to the next: float64 [T - 1], in units of 0 to 1."""
    changes = [
        (after.to(torch.int16) - before.to(torch.int16)).abs().to(torch.float64).mean() / 255
        for before, after in itertools.pairwise(video_THWC)
    ]
    return torch.stack(changes) if changes else torch.zeros(0, dtype=torch.float64)
