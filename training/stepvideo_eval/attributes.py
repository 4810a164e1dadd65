"""From the track of a thing to the words for it: colour, shape, size, motion and speed.

An attribute is None where what is seen is nothing that the world has: a colour far from all of its
colours, a lump, a thing that moves and grows at once.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from stepvideo_eval.background import Background, Float, fit_background
from stepvideo_eval.tracking import ORDERS, Track, find_things
from stepvideo_world.render import render
from stepvideo_world.scene import (
    COLOUR_RGB,
    GROUND_RGB,
    GROWTH,
    SHAPES,
    SIZE_RADIUS,
    SPEED_DISTANCE,
    TURN,
    UNIT_VECTORS,
    Colour,
    Ground,
    Motion,
    Scene,
    Shape,
    Size,
    Speed,
    Thing,
)

_SYMMETRY: Mapping[Shape, int] = {"triangle": 3, "square": 4, "star": 5}
"""The order of the harmonic by which a shape is known; a circle has none."""
_ELONGATED = 0.25
"""Second harmonic of an ellipse with axes of 1 to 1.6, as far from a circle as a square is."""
_MAX_SHAPE_DISTANCE = 0.75
_MAX_COLOUR_DISTANCE = 80.0
"""Levels in RGB; the colours of the world are 97 and more apart."""
_CLEAR = 2.0
"""How many times the second motion the first must have, to be the only one."""

_N = TypeVar("_N", bound=str)


@dataclass(frozen=True, kw_only=True)
class ThingSeen:
    """One thing of a clip in the world's words; None is unclear.

    speed: None also where nothing moves, as there is no speed to speak of.
    """

    shape: Shape | None
    colour: Colour | None
    motion: Motion | None
    speed: Speed | None
    size: Size | None


def describe(track: Track) -> ThingSeen:
    """The words for a track."""
    shape = shape_of(track)
    motion, distance = motion_of(track)
    return ThingSeen(
        shape=shape,
        colour=_nearest(track.colour_C, COLOUR_RGB),
        motion=motion,
        speed=None if distance is None else _in_range(distance, SPEED_DISTANCE),
        size=_in_range(_largest_radius(track) / _equal_area_radius(shape), SIZE_RADIUS),
    )


def ground_of(background: Background) -> Ground | None:
    """The world's ground that is nearest; None if a colour is far from all of the world's."""
    inset = 1 - 1 / background.height
    top = _nearest(background.at(0.0, -inset), GROUND_RGB)
    bottom = _nearest(background.at(0.0, inset), GROUND_RGB)
    if top is None or bottom is None:
        return None
    across = background.at(1.0, 0.0) - background.at(-1.0, 0.0)
    if float(np.linalg.norm(across)) > _MAX_COLOUR_DISTANCE:
        return None
    return Ground(top=top, bottom=bottom)


def shape_of(track: Track) -> Shape | None:
    """The shape by the harmonics of its outline, each as a share of what a perfect one has."""
    weight_T1 = np.nan_to_num(track.radius_T)[:, None] ** 2
    strength_K = (np.abs(np.nan_to_num(track.harmonics_TK)) * weight_T1).sum(axis=0)
    strength_K /= weight_T1.sum()
    # More than perfect is no fault: noise and sharpening strengthen what is there.
    found_K = np.minimum(strength_K / _perfect(), 1.0)
    distance = {shape: float(np.linalg.norm(found_K - _ideal(shape))) for shape in SHAPES}
    best = min(distance, key=lambda shape: distance[shape])
    return best if distance[best] < _MAX_SHAPE_DISTANCE else None


def motion_of(track: Track) -> tuple[Motion | None, float | None]:
    """The motion and, if the centre moves, the way in shorter sides of the frame.

    Straight lines are fitted to position, radius and angle over the whole clip. What they tell is
    compared with half of the least that the world has of each motion.
    """
    u_T = _times(track)
    place_T2 = track.centre_T2[track.present_T]
    if len(u_T) < 2:
        return None, None
    start_2, way_2 = _line(u_T, place_T2)
    distance = float(np.hypot(*way_2))
    height_T = place_T2[:, 1] - (start_2[1] + u_T * way_2[1])
    bounce = float(np.ptp(height_T)) if _crossings(height_T) >= 3 else 0.0
    first, last = _radius_line(track)
    growth = float(np.log(max(last, 1e-6) / max(first, 1e-6)) / np.log(GROWTH))
    least_way = SPEED_DISTANCE["slow"][0]
    evidence = {
        "way": distance / least_way,
        "bounce": bounce / least_way,
        "grow": growth,
        "shrink": -growth,
        "rotate": abs(_turns(track)) / TURN,
    }
    ranking = sorted(evidence, key=lambda kind: -evidence[kind])
    first_kind, second_kind = ranking[:2]
    if evidence[first_kind] < 0.5:
        return "stay", None
    if evidence[first_kind] < _CLEAR * max(evidence[second_kind], 0.0):
        return None, None
    if first_kind == "way":
        direction = max(UNIT_VECTORS, key=lambda name: float(np.dot(UNIT_VECTORS[name], way_2)))
        return direction, distance
    if first_kind == "bounce":
        return "bounce", bounce
    motions: dict[str, Motion] = {"grow": "grow", "shrink": "shrink", "rotate": "rotate"}
    return motions[first_kind], None


def _times(track: Track) -> Float:
    """From 0 to 1 over the clip, of the frames in which the thing was found."""
    return np.linspace(0.0, 1.0, len(track.present_T), dtype=np.float32)[track.present_T]


def _line(u_T: Float, values: Float) -> tuple[Float, Float]:
    """Value at u = 0 and change until u = 1 of the straight line of least squares."""
    design_T2 = np.stack([np.ones_like(u_T), u_T], axis=1)
    found = np.linalg.lstsq(design_T2, values, rcond=None)[0]
    return found[0], found[1]


def _radius_line(track: Track) -> tuple[float, float]:
    start, change = _line(_times(track), track.radius_T[track.present_T])
    return float(start), float(start + change)


def _largest_radius(track: Track) -> float:
    return max(_radius_line(track))


def _crossings(height_T: Float) -> int:
    """How often a curve passes the middle of its range."""
    above_T = height_T > (height_T.max() + height_T.min()) / 2
    return int((above_T[1:] != above_T[:-1]).sum())


def _turns(track: Track) -> float:
    """Turns that the outline makes in the clip, by the phase of the strongest harmonic."""
    harmonics_TK = track.harmonics_TK[track.present_T]
    shape = shape_of(track)
    if shape is None or shape == "circle":
        return 0.0
    order = _SYMMETRY[shape]
    phase_T = np.unwrap(np.angle(harmonics_TK[:, ORDERS.index(order)]))
    _, change = _line(_times(track), phase_T)
    return float(change) / (2 * np.pi * order)


@functools.cache
def _reference(shape: Shape) -> Track:
    """The track of a still, perfect shape, as the world draws it."""
    thing = Thing(
        shape=shape,
        colour="red",
        motion="stay",
        speed="normal",
        size="large",
        x=0.5,
        y=0.5,
        radius=0.25,
    )
    side = 128
    scene = Scene(
        things=(thing,), ground=Ground.plain("black"), num_frames=1, height=side, width=side
    )
    frames_THWC = render(scene).astype(np.float32)
    (track,), _ = find_things(frames_THWC, fit_background(frames_THWC))
    return track


@functools.cache
def _perfect() -> Float:
    """The strength of each harmonic in the shape that it is typical of."""
    strengths = {2: _ELONGATED}
    for shape, order in _SYMMETRY.items():
        found = _reference(shape).harmonics_TK[0, ORDERS.index(order)]
        strengths[order] = float(np.abs(found))
    return np.array([strengths[order] for order in ORDERS], dtype=np.float32)


def _ideal(shape: Shape) -> Float:
    """A perfect shape in shares of the harmonics: 1 for its own, 0 for the others."""
    return np.array([float(_SYMMETRY.get(shape) == order) for order in ORDERS], dtype=np.float32)


def _equal_area_radius(shape: Shape | None) -> float:
    """Radius of the circle of equal area, in the world's radii of the shape."""
    ratios = [float(_reference(each).radius_T[0]) / 0.25 for each in ([shape] if shape else SHAPES)]
    return sum(ratios) / len(ratios)


def _nearest(colour_C: Float, palette: Mapping[_N, tuple[int, int, int]]) -> _N | None:
    distance = {
        name: float(np.linalg.norm(colour_C - np.array(rgb))) for name, rgb in palette.items()
    }
    best = min(distance, key=lambda name: distance[name])
    return best if distance[best] < _MAX_COLOUR_DISTANCE else None


def _in_range(value: float, ranges: Mapping[_N, tuple[float, float]]) -> _N:
    """The range that a value lies in; between two ranges, the nearer one."""

    def outside(name: _N) -> float:
        low, high = ranges[name]
        return max(low - value, value - high)

    return min(ranges, key=outside)
