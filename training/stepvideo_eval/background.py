"""The background of a clip: a plane of colour, fitted to the pixels that belong to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]

_FRAMES = 9
_ROUNDS, _STARTS = 8, 48
_NOISE_FLOOR = 3.0
"""Levels (of 255) below which a deviation is never taken for an object's."""


@dataclass(frozen=True)
class Background:
    """A colour that changes linearly over the frame; a plain one is the special case.

    plane_3C: colour in the centre, its change from there to the right border and to the lower
    border, in levels of 0 to 255. noise: standard deviation of a pixel's value around it.
    """

    plane_3C: Float
    noise: float
    height: int
    width: int

    def colours(self) -> Float:
        """The colour at every pixel, [H, W, 3]."""
        return (_design(self.height, self.width) @ self.plane_3C).reshape(
            self.height, self.width, 3
        )

    def at(self, x: float, y: float) -> Float:
        """The colour [3] at a place; x and y run from -1 to 1 between the borders."""
        return np.array([1.0, x, y], dtype=np.float32) @ self.plane_3C


def fit_background(frames_THWC: Float) -> Background:
    """Least trimmed squares over the frame, begun by the least median of squares along its border.

    frames_THWC: float32 [T, H, W, 3], levels of 0 to 255. Objects may cover up to about 40 % of
    the frame, and may lie still.
    """
    times = np.linspace(0, len(frames_THWC) - 1, min(_FRAMES, len(frames_THWC))).round()
    chosen_SHWC = frames_THWC[times.astype(int)]
    # What passes by vanishes in the median over time; what stays is left to the trimming.
    still_HWC = np.median(chosen_SHWC, axis=0).astype(np.float32)
    height, width = still_HWC.shape[:2]
    design_N3, colours_NC = _design(height, width), still_HWC.reshape(-1, 3)
    border_B = _border(height, width)
    plane_3C = _least_median(design_N3[border_B], colours_NC[border_B])
    kept_N = np.zeros(len(design_N3), dtype=bool)
    kept_N[border_B] = True
    for _ in range(_ROUNDS):
        error_N = np.abs(colours_NC - design_N3 @ plane_3C).max(axis=1)
        # The median deviation is not moved by an object that covers part of what is kept.
        scale = max(_NOISE_FLOOR, 1.5 * float(np.median(error_N[kept_N])))
        now_N = error_N < 3 * scale
        if bool((now_N == kept_N).all()):
            break
        kept_N = now_N
        plane_3C = _least_squares(design_N3[kept_N], colours_NC[kept_N])
    spread = chosen_SHWC.reshape(len(chosen_SHWC), -1, 3)[:, kept_N] - design_N3[kept_N] @ plane_3C
    return Background(
        plane_3C=plane_3C.astype(np.float32),
        noise=1.4826 * float(np.median(np.abs(spread))),
        height=height,
        width=width,
    )


def _least_squares(design_N3: Float, colours_NC: Float) -> Float:
    return np.linalg.solve(design_N3.T @ design_N3, design_N3.T @ colours_NC)


def _least_median(design_B3: Float, colours_BC: Float) -> Float:
    """The plane through three pixels, a third of the way round apart, that most pixels agree with.

    An object may hide up to a third of the border: some triples then miss it. P. J. Rousseeuw,
    Journal of the American Statistical Association 79 (1984).
    """
    third = len(design_B3) // 3
    starts_S = np.unique(np.linspace(0, third - 1, _STARTS).astype(int))
    triples_S3 = starts_S[:, None] + third * np.arange(3)
    planes_S3C = np.linalg.solve(design_B3[triples_S3], colours_BC[triples_S3])
    errors_SB = np.abs(design_B3 @ planes_S3C - colours_BC).max(axis=-1)
    return planes_S3C[int(np.median(errors_SB, axis=1).argmin())]


def _design(height: int, width: int) -> Float:
    """Rows (1, x, y) of every pixel."""
    y_HW, x_HW = np.mgrid[0:height, 0:width].astype(np.float32)
    x_HW, y_HW = (2 * x_HW + 1) / width - 1, (2 * y_HW + 1) / height - 1
    return np.stack([np.ones_like(x_HW), x_HW, y_HW], axis=-1).reshape(-1, 3)


def _border(height: int, width: int) -> NDArray[np.int64]:
    """Indices of the outermost pixels, once around the frame."""
    index_HW = np.arange(height * width).reshape(height, width)
    sides = index_HW[0], index_HW[1:, -1], index_HW[-1, -2::-1], index_HW[-2:0:-1, 0]
    return np.concatenate(sides)
