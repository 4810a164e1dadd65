"""Connected regions against a flood fill, and the background's fit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from stepvideo_eval.background import fit_background
from stepvideo_eval.components import dilated, label_components


def flood_fill(mask_THW: NDArray[np.bool_]) -> NDArray[np.int64]:
    labels = np.zeros(mask_THW.shape, dtype=np.int64)
    for seed in map(tuple, np.argwhere(mask_THW)):
        if labels[seed]:
            continue
        stack, number = [seed], labels.max() + 1
        while stack:
            t, row, column = stack.pop()
            inside = 0 <= row < mask_THW.shape[1] and 0 <= column < mask_THW.shape[2]
            if inside and mask_THW[t, row, column] and not labels[t, row, column]:
                labels[t, row, column] = number
                stack += [(t, row + 1, column), (t, row - 1, column)]
                stack += [(t, row, column + 1), (t, row, column - 1)]
    return labels


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)).flatmap(
        lambda shape: arrays(np.bool_, shape)
    )
)
def test_components_are_those_of_a_flood_fill(mask_THW: NDArray[np.bool_]) -> None:
    assert np.array_equal(label_components(mask_THW), flood_fill(mask_THW))


def test_a_spiral_is_one_component() -> None:
    """The longest way through a mask: labels must travel all of it."""
    size = 41
    mask = np.zeros((1, size, size), dtype=bool)
    row, column, turn = 0, 0, 0
    steps = [(0, 1), (1, 0), (0, -1), (-1, 0)]
    for length in (size - 1, *(n for n in range(size - 1, 0, -2) for _ in range(2))):
        for _ in range(length):
            mask[0, row, column] = True
            row, column = row + steps[turn][0], column + steps[turn][1]
        turn = (turn + 1) % 4
    assert 0.4 < mask.mean() < 0.6
    assert label_components(mask).max() == flood_fill(mask).max() == 1


def test_dilation_grows_by_a_square() -> None:
    mask = np.zeros((2, 9, 9), dtype=bool)
    mask[1, 4, 4] = True
    grown = dilated(mask, 2)
    assert not grown[0].any()
    assert np.array_equal(np.argwhere(grown[1]).min(axis=0), [2, 2])
    assert grown[1].sum() == 25
    assert mask.sum() == 1


@pytest.mark.parametrize("corner", [(15, 20), (30, 0)])
@pytest.mark.parametrize("noise", [0.0, 12.0])
def test_the_background_behind_a_still_thing(noise: float, corner: tuple[int, int]) -> None:
    """A plane of colour, of which a thing hides a quarter all the time, a corner among it."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[0:60, 0:80]
    x, y = (2 * x + 1) / 80 - 1, (2 * y + 1) / 60 - 1
    plane = np.array([[120.0, 100.0, 90.0], [30.0, -20.0, 0.0], [-50.0, 10.0, 40.0]])
    frame = plane[0] + x[..., None] * plane[1] + y[..., None] * plane[2]
    top, left = corner
    frame[top : top + 30, left : left + 40] = (250, 230, 40)
    frames = frame + rng.normal(0, noise, (9, *frame.shape)) if noise else frame[None]
    found = fit_background(frames.astype(np.float32))
    assert np.abs(found.plane_3C - plane).max() < 1 + noise / 4
    assert found.noise == pytest.approx(noise, abs=0.5)
    assert np.allclose(found.at(1.0, -1.0), plane[0] + plane[1] - plane[2], atol=2 + noise / 2)
