"""Frames of a scene, by signed distance.

Axis letters: T frames, H rows, W columns, C red, green and blue.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepvideo_world.scene import (
    COLOUR_RGB,
    GROUND_RGB,
    GROWTH,
    NUM_BOUNCES,
    TURN,
    UNIT_VECTORS,
    Scene,
    Shape,
    Thing,
)

Float = NDArray[np.floating[Any]]
RAMP_PIXELS = 1.5
"""Width of the band in which an edge fades: that of a tent-like reconstruction filter."""
SQUARE_HALF_SIDE = 0.87
TRIANGLE_INRADIUS = 0.65
STAR_TIP, STAR_NOTCH = 1.3, 0.65


def render(scene: Scene) -> NDArray[np.uint8]:
    """Anti-aliased frames, uint8 [T, H, W, 3]."""
    frames_THWC = np.broadcast_to(
        _ground(scene)[None, :, None, :], (scene.num_frames, scene.height, scene.width, 3)
    )
    for thing in scene.things:
        colour_C = np.array(COLOUR_RGB[thing.colour], dtype=np.float32)
        alpha_THW1 = coverage(thing, scene)[..., None]
        frames_THWC = frames_THWC + alpha_THW1 * (colour_C - frames_THWC)
    return np.rint(frames_THWC).astype(np.uint8)


def coverage(thing: Thing, scene: Scene) -> Float:
    """How much of each pixel a thing covers, float32 in [0, 1], [T, H, W]."""
    side = min(scene.height, scene.width)
    place_T2, radius_T, angle_T = trajectory(thing, scene.num_frames)
    # Fractions of the shorter side from the frame's centre to the pixels' centres.
    rows_H = (np.arange(scene.height, dtype=np.float32) + 0.5 - scene.height / 2) / side + 0.5
    columns_W = (np.arange(scene.width, dtype=np.float32) + 0.5 - scene.width / 2) / side + 0.5
    x_THW = columns_W[None, None, :] - place_T2[:, 0, None, None]
    y_THW = rows_H[None, :, None] - place_T2[:, 1, None, None]
    if thing.shape != "circle" and angle_T.any():
        cos, sin = (f(2 * math.pi * angle_T)[:, None, None] for f in (np.cos, np.sin))
        x_THW, y_THW = x_THW * cos + y_THW * sin, y_THW * cos - x_THW * sin
    outside_THW = _distance(thing.shape, x_THW, y_THW, radius_T[:, None, None])
    return np.clip(0.5 - outside_THW * (side / RAMP_PIXELS), 0.0, 1.0)


def trajectory(thing: Thing, num_frames: int) -> tuple[Float, Float, Float]:
    """Centre [T, 2] as (x, y), radius [T] and angle [T] in turns, float32, of every frame."""
    u_T = np.linspace(0.0, 1.0, num_frames, dtype=np.float32) if num_frames > 1 else np.zeros(1)
    place_T2 = np.tile(np.array([thing.x, thing.y], dtype=np.float32), (num_frames, 1))
    radius_T = np.full(num_frames, thing.radius, dtype=np.float32)
    angle_T = np.full(num_frames, thing.angle, dtype=np.float32)
    motion = thing.motion
    if motion == "rotate":
        angle_T += TURN * u_T
    elif motion == "grow":
        radius_T *= (1 + (GROWTH - 1) * u_T) / GROWTH
    elif motion == "shrink":
        radius_T *= (GROWTH - (GROWTH - 1) * u_T) / GROWTH
    elif motion == "bounce":
        place_T2[:, 1] -= thing.distance * np.abs(np.sin(NUM_BOUNCES * math.pi * u_T))
    elif motion != "stay":
        place_T2 += thing.distance * u_T[:, None] * np.array(UNIT_VECTORS[motion])
    return place_T2.astype(np.float32), radius_T, angle_T


def _ground(scene: Scene) -> Float:
    """Colour of every row, [H, 3]."""
    top_C, bottom_C = (
        np.array(GROUND_RGB[name], dtype=np.float32)
        for name in (scene.ground.top, scene.ground.bottom)
    )
    along_H1 = np.linspace(0.0, 1.0, scene.height, dtype=np.float32)[:, None]
    return top_C + along_H1 * (bottom_C - top_C)


def _distance(shape: Shape, x: Float, y: Float, radius: Float) -> Float:
    """Signed distance to the outline, negative inside; beyond corners that of the nearest edge.

    A square stands on a side, a triangle and a star point upwards. Sizes in radii: half the
    square's side, the triangle's inscribed circle, and the star's tips and notches are as the
    constants above say.
    """
    if shape == "circle":
        return np.sqrt(x * x + y * y) - radius
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - SQUARE_HALF_SIDE * radius
    if shape == "triangle":
        slanted = math.sqrt(0.75) * np.abs(x) - 0.5 * y
        return np.maximum(slanted, y) - TRIANGLE_INRADIUS * radius
    # Ten mirrored sectors of 36 degrees, each with one edge from a tip to a notch.
    sector = 2 * math.pi / 5
    turn = np.arctan2(x, -y)
    turn = np.abs(turn - sector * np.rint(turn / sector))
    length = np.sqrt(x * x + y * y)
    along, across = length * np.cos(turn), length * np.sin(turn)
    notch = (STAR_NOTCH * math.cos(sector / 2), STAR_NOTCH * math.sin(sector / 2))
    edge = (notch[0] - STAR_TIP, notch[1])
    norm = math.hypot(*edge)
    return ((along - STAR_TIP * radius) * edge[1] - across * edge[0]) / norm
