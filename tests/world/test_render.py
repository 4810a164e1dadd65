"""Frames show what the scene says: areas, centres, motion, colours."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from stepvideo_world.render import (
    SQUARE_HALF_SIDE,
    STAR_NOTCH,
    STAR_TIP,
    TRIANGLE_INRADIUS,
    coverage,
    render,
    trajectory,
)
from stepvideo_world.scene import (
    COLOUR_RGB,
    COLOURS,
    DIRECTIONS,
    GROUND_COLOURS,
    GROUND_RGB,
    GROWTH,
    REACH,
    SHAPES,
    UNIT_VECTORS,
    Ground,
    Scene,
    Shape,
    Thing,
)

AREA = {
    "circle": math.pi,
    "square": (2 * SQUARE_HALF_SIDE) ** 2,
    "triangle": 3 * math.sqrt(3) * TRIANGLE_INRADIUS**2,
    "star": 10 * 0.5 * STAR_TIP * STAR_NOTCH * math.sin(math.pi / 5),
}
"""In squared radii, from the formulas of the shapes."""


def thing(**changes: object) -> Thing:
    base = Thing(
        shape="circle",
        colour="red",
        motion="stay",
        speed="normal",
        size="large",
        x=0.5,
        y=0.5,
        radius=0.22,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def scene(*things: Thing, **changes: object) -> Scene:
    base = Scene(things=things, ground=Ground.plain("black"))
    return replace(base, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [(64, 64), (48, 80), (97, 61)])
def test_area_and_centre(shape: Shape, size: tuple[int, int]) -> None:
    one = thing(shape=shape, x=0.47, y=0.52)
    at = scene(one, height=size[0], width=size[1], num_frames=1)
    mask_HW = coverage(one, at)[0]
    side = min(size)
    assert mask_HW.sum() == pytest.approx(AREA[shape] * (0.22 * side) ** 2, rel=0.02)
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    x = (mask_HW * columns).sum() / mask_HW.sum()
    y = (mask_HW * rows).sum() / mask_HW.sum()
    assert x == pytest.approx(size[1] / 2 - 0.03 * side, abs=0.1)
    assert y == pytest.approx(size[0] / 2 + 0.02 * side, abs=0.1)


@pytest.mark.parametrize("shape", SHAPES)
def test_reach_is_the_farthest_point(shape: Shape) -> None:
    one = thing(shape=shape)
    mask_HW = coverage(one, scene(one, height=512, width=512, num_frames=1))[0]
    rows, columns = np.nonzero(mask_HW > 0.5)
    farthest = np.hypot(columns + 0.5 - 256, rows + 0.5 - 256).max()
    assert farthest == pytest.approx(REACH[shape] * 0.22 * 512, rel=0.02)


def test_shapes_differ() -> None:
    """Each pair disagrees on a good part of its area, so that a viewer can tell them apart."""
    at = scene(thing(), num_frames=1)
    masks = [coverage(thing(shape=shape), at)[0] for shape in SHAPES]
    for one, other in itertools.combinations(masks, 2):
        assert np.abs(one - other).sum() > 0.2 * np.minimum(one, other).sum()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_motion_goes_the_way_it_is_called(direction: str) -> None:
    dx, dy = UNIT_VECTORS[direction]  # type: ignore[index]
    one = thing(motion=direction, distance=0.3, x=0.5 - 0.15 * dx, y=0.5 - 0.15 * dy)
    masks_THW = coverage(one, scene(one))
    rows, columns = np.mgrid[:64, :64] + 0.5
    total_T = masks_THW.sum(axis=(1, 2))
    x_T = (masks_THW * columns).sum(axis=(1, 2)) / total_T
    y_T = (masks_THW * rows).sum(axis=(1, 2)) / total_T
    assert x_T[-1] - x_T[0] == pytest.approx(0.3 * 64 * dx, abs=0.15)
    assert y_T[-1] - y_T[0] == pytest.approx(0.3 * 64 * dy, abs=0.15)
    steps = np.hypot(np.diff(x_T), np.diff(y_T))
    assert steps == pytest.approx(np.full(16, 0.3 * 64 / 16), abs=0.1)


def test_growth_and_its_reverse() -> None:
    grow, shrink = (trajectory(thing(motion=m), 17)[1] for m in ("grow", "shrink"))
    assert grow[-1] / grow[0] == pytest.approx(GROWTH)
    assert np.allclose(grow, shrink[::-1])
    assert grow.max() == pytest.approx(0.22)


def test_rotation_is_clockwise() -> None:
    one = thing(shape="triangle", motion="rotate")
    masks_THW = coverage(one, scene(one))
    # The tip that pointed up points to the right after a quarter turn.
    assert np.allclose(masks_THW[-1], np.rot90(masks_THW[0], -1), atol=1e-3)


def test_bounce_comes_back_and_never_goes_below() -> None:
    y_T = trajectory(thing(motion="bounce", distance=0.3), 33)[0][:, 1]
    assert y_T[0] == pytest.approx(0.5)
    assert y_T[-1] == pytest.approx(0.5, abs=1e-6)
    assert y_T.max() <= 0.5 + 1e-6
    assert y_T.min() == pytest.approx(0.2, abs=1e-3)


@pytest.mark.parametrize("colour", COLOURS)
def test_colours_are_exact_inside_and_outside(colour: str) -> None:
    frames = render(scene(thing(colour=colour), ground=Ground.plain("gray")))
    assert frames.dtype == np.uint8
    assert frames.shape == (17, 64, 64, 3)
    assert tuple(frames[0, 32, 32]) == COLOUR_RGB[colour]  # type: ignore[index]
    assert tuple(frames[0, 0, 0]) == GROUND_RGB["gray"]


def test_gradient_runs_from_top_to_bottom() -> None:
    for top, bottom in itertools.permutations(GROUND_COLOURS, 2):
        frame = render(scene(thing(radius=0.05), ground=Ground(top=top, bottom=bottom)))[0]
        assert tuple(frame[0, 0]) == GROUND_RGB[top]
        assert tuple(frame[-1, 0]) == GROUND_RGB[bottom]


def test_edges_are_smooth() -> None:
    mask_HW = coverage(thing(), scene(thing(), num_frames=1))[0]
    between = (mask_HW > 0.05) & (mask_HW < 0.95)
    # A ring of about one ramp's width round the outline.
    assert 60 < between.sum() < 200


def test_later_things_cover_earlier_ones() -> None:
    frames = render(scene(thing(colour="red"), thing(colour="blue", radius=0.1)))
    assert tuple(frames[0, 32, 32]) == COLOUR_RGB["blue"]
    assert tuple(frames[0, 32, 42]) == COLOUR_RGB["red"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"motion": "rotate"}, "circle that rotates"), ({"radius": 0.0}, "radius")],
)
def test_impossible_things_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        thing(**changes)


def test_impossible_scenes_are_refused() -> None:
    with pytest.raises(ValueError, match="one or two things"):
        scene()
    with pytest.raises(ValueError, match="num_frames 0"):
        scene(thing(), num_frames=0)
