"""Finding the things of a clip: segmentation against the background, and one track per thing."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepvideo_eval.background import Background, Float
from stepvideo_eval.components import Labels, Mask, dilated, label_components

ORDERS = (2, 3, 4, 5)
"""Of the harmonics that a track carries."""

_THRESHOLD = 40.0
"""Levels of distance in RGB from the background from which a pixel may belong to a thing."""
_NOISE_FACTOR = 4.5
_MIN_AREA = 0.003
"""Share of the frame that a region needs to count as a thing."""
_LEAST_CONTRAST = 1 / 3
"""Of a thing, as a share of the strongest in its frame; in the world it is 0.43 and more."""
_MAX_TRACKED = 2
_COLOUR_WEIGHT = 0.02
"""Way, in shorter sides, that counts as much as one level of colour when regions are linked."""


@dataclass(frozen=True)
class Track:
    """What is measured of one thing in every frame.

    Lengths are fractions of the frame's shorter side. Weights are the share of a pixel that the
    thing covers, so that anti-aliased and blurred edges count by halves.

    colour_C: levels of 0 to 255. present_T: frames in which it was found; elsewhere the other
    arrays hold NaN. centre_T2: (x, y). radius_T: of the circle of equal area. harmonics_TK: for
    each order k of ORDERS the mean of ((x + iy) / radius)^k around the centre, complex. Such a
    moment is zero for a circle and for shapes without k-fold symmetry, turns by k times the
    shape's angle, and does not change under any blur that is the same in all directions, because
    z^k is harmonic.
    """

    colour_C: Float
    present_T: Mask
    centre_T2: Float
    radius_T: Float
    harmonics_TK: NDArray[np.complex64]


def find_things(frames_THWC: Float, background: Background) -> tuple[list[Track], int]:
    """The tracks of at most two things, the larger first, and how many things there are.

    frames_THWC: float32 [T, H, W, 3], levels of 0 to 255.
    """
    away_THWC = frames_THWC - background.colours()
    distance_THW = np.sqrt((away_THWC * away_THWC).sum(axis=-1))
    threshold = max(_THRESHOLD, _NOISE_FACTOR * background.noise)
    labels_THW = label_components(distance_THW > threshold)
    regions = _regions(labels_THW, distance_THW, frames_THWC)
    num_things = int(np.median([len(in_frame) for in_frame in regions]))
    chains = _link(regions, min(num_things, _MAX_TRACKED))
    masks = [_mask(labels_THW, chain) for chain in chains]
    tracks = []
    for number, (chain, mask_THW) in enumerate(zip(chains, masks, strict=True)):
        colour_C = np.median([region.colour_C for region in chain if region is not None], axis=0)
        near_THW = dilated(mask_THW, 2)
        for other_THW in masks[:number] + masks[number + 1 :]:
            near_THW &= ~dilated(other_THW, 1)
        tracks.append(_measure(frames_THWC, background, near_THW, colour_C.astype(np.float32)))
    return sorted(tracks, key=lambda track: -float(np.nansum(track.radius_T))), num_things


@dataclass(frozen=True)
class _Region:
    """A connected region of one frame."""

    label: int
    area: int
    place_2: Float
    colour_C: Float
    contrast: float


def _regions(labels_THW: Labels, distance_THW: Float, frames_THWC: Float) -> list[list[_Region]]:
    """The regions of each frame that are large enough, by decreasing area."""
    num_frames, height, width = labels_THW.shape
    min_area = max(4.0, _MIN_AREA * height * width)
    areas = np.bincount(labels_THW.reshape(-1))
    # Labels run from frame to frame, so the largest of a frame is its last.
    last_T = np.maximum.accumulate(labels_THW.reshape(num_frames, -1).max(axis=1))
    found: list[list[_Region]] = [[] for _ in range(num_frames)]
    for label in np.flatnonzero(areas >= min_area):
        if label > 0:
            frame = int(np.searchsorted(last_T, label))
            inside_HW = labels_THW[frame] == label
            far_N = distance_THW[frame][inside_HW]
            # The half that is farthest from the background's colour is free of mixed edge pixels.
            core_NC = frames_THWC[frame][inside_HW][far_N >= np.median(far_N)]
            place_2 = np.argwhere(inside_HW).mean(axis=0)[::-1] / min(height, width)
            found[frame].append(
                _Region(
                    label=int(label),
                    area=int(areas[label]),
                    place_2=place_2.astype(np.float32),
                    colour_C=np.median(core_NC, axis=0),
                    contrast=float(np.median(far_N)),
                )
            )
    return [_things_among(in_frame) for in_frame in found]


def _things_among(in_frame: list[_Region]) -> list[_Region]:
    """Regions that stand out as things do, by decreasing area; stains on the ground are fainter."""
    least = _LEAST_CONTRAST * max((region.contrast for region in in_frame), default=0.0)
    return sorted(
        (region for region in in_frame if region.contrast >= least),
        key=lambda region: -region.area,
    )


_Chain = list["_Region | None"]


def _link(regions: list[list[_Region]], count: int) -> list[_Chain]:
    """For each thing its region in every frame, or None: the cheapest continuation each time."""
    chains: list[_Chain] = [[] for _ in range(count)]
    latest: list[_Region | None] = [None] * count
    for in_frame in regions:
        candidates: _Chain = [*in_frame[: count + 1], *([None] * count)]
        best = min(
            itertools.permutations(candidates, count),
            key=lambda choice: sum(map(_cost, latest, choice)),
            default=(),
        )
        for number, region in enumerate(best):
            chains[number].append(region)
            latest[number] = region or latest[number]
    return chains


def _cost(before: _Region | None, after: _Region | None) -> float:
    if after is None:
        return 2.0
    if before is None:
        return 1.0 / after.area
    moved = float(np.hypot(*(after.place_2 - before.place_2)))
    return moved + _COLOUR_WEIGHT * float(np.linalg.norm(after.colour_C - before.colour_C))


def _mask(labels_THW: Labels, chain: _Chain) -> Mask:
    wanted_T = np.array([-1 if region is None else region.label for region in chain])
    return labels_THW == wanted_T[:, None, None]


def _measure(frames_THWC: Float, background: Background, near_THW: Mask, colour_C: Float) -> Track:
    num_frames, height, width = near_THW.shape
    side = min(height, width)
    t_N, row_N, column_N = np.nonzero(near_THW)
    ground_NC = background.colours()[row_N, column_N]
    contrast_NC = colour_C - ground_NC
    away_NC = frames_THWC[t_N, row_N, column_N] - ground_NC
    weight_N = (away_NC * contrast_NC).sum(axis=1) / (contrast_NC * contrast_NC).sum(axis=1)
    weight_N = np.clip(weight_N, 0.0, 1.0)

    def summed(values_N: Float) -> Float:
        return np.bincount(t_N, weights=values_N, minlength=num_frames).astype(np.float32)

    area_T = summed(weight_N)
    present_T = area_T > 0
    area_T = np.where(present_T, area_T, 1.0)
    x_N, y_N = column_N + 0.5, row_N + 0.5
    centre_T2 = np.stack([summed(weight_N * x_N), summed(weight_N * y_N)], axis=1)
    centre_T2 /= area_T[:, None]
    radius_T = np.sqrt(area_T / np.pi)
    z_N = (x_N - centre_T2[t_N, 0]) + 1j * (y_N - centre_T2[t_N, 1])
    z_N /= radius_T[t_N]
    harmonics = []
    for order in ORDERS:
        power_N = weight_N * z_N**order
        harmonics.append((summed(power_N.real) + 1j * summed(power_N.imag)) / area_T)
    centre_T2 = (centre_T2 - np.array([width, height]) / 2) / side + 0.5
    absent_T = np.where(present_T, 0.0, np.nan)
    return Track(
        colour_C=colour_C,
        present_T=present_T,
        centre_T2=(centre_T2 + absent_T[:, None]).astype(np.float32),
        radius_T=(radius_T / side + absent_T).astype(np.float32),
        harmonics_TK=(np.stack(harmonics, axis=1) + absent_T[:, None]).astype(np.complex64),
    )
