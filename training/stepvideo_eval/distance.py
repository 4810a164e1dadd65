"""Distances between videos: diversity over seeds, and the nearest sample of a training set.

Videos are compared as thumbnails: a distance between full frames would mostly tell the sharpness.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

THUMBNAIL = (8, 16, 16)
"""Frames, height and width of the thumbnails."""


def thumbnail(video_THWC: Tensor) -> Tensor:
    """The video averaged down to 8 frames of 16x16: float32 [8 * 16 * 16 * 3], values 0 to 1.

    video_THWC: uint8 [T, H, W, 3] of any size; what is smaller than a thumbnail is repeated.
    """
    video_CTHW = video_THWC.permute(3, 0, 1, 2).float() / 255
    return F.adaptive_avg_pool3d(video_CTHW, THUMBNAIL).flatten()


def distances(left_ND: Tensor, right_MD: Tensor) -> Tensor:
    """Root-mean-square differences [N, M] between rows, in units of 0 to 1."""
    # The faster form by matrix products cancels: equal videos would not be at distance 0.
    found = torch.cdist(left_ND, right_MD, compute_mode="donot_use_mm_for_euclid_dist")
    return found / left_ND.shape[1] ** 0.5


def diversity(thumbnails: Sequence[Tensor]) -> float | None:
    """Mean distance over all pairs of videos of one prompt; 0 if the seed has no effect.

    None for fewer than two videos.
    """
    if len(thumbnails) < 2:
        return None
    table = distances(torch.stack(list(thumbnails)), torch.stack(list(thumbnails)))
    pairs = [table[i, j] for i, j in itertools.combinations(range(len(thumbnails)), 2)]
    return float(torch.stack(pairs).mean())


def nearest(thumbnails_ND: Tensor, references: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Distance [N] of each thumbnail to the nearest reference, and which one that is (int64 [N]).

    references: thumbnails, read one at a time, so that a training set need not fit into memory.
    Raises ValueError if there are none.
    """
    best = torch.full((len(thumbnails_ND),), torch.inf)
    which = torch.full((len(thumbnails_ND),), -1, dtype=torch.int64)
    for number, reference in enumerate(references):
        found = distances(thumbnails_ND, reference[None])[:, 0]
        closer = found < best
        best, which = best.where(~closer, found), which.masked_fill(closer, number)
    if bool((which < 0).any()):
        raise ValueError("there is no reference to compare with")
    return best, which
