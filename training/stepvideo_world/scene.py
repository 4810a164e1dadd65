"""What a clip shows: one or two things, how they move, and what is behind them.

Positions and lengths are fractions of the frame's shorter side, so that a scene means the same at
every resolution; y grows downwards, as in images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Shape = Literal["circle", "square", "triangle", "star"]
Colour = Literal["red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink"]
Direction = Literal["right", "left", "up", "down", "up-right", "up-left", "down-right", "down-left"]
Motion = Literal[
    "right",
    "left",
    "up",
    "down",
    "up-right",
    "up-left",
    "down-right",
    "down-left",
    "stay",
    "rotate",
    "grow",
    "shrink",
    "bounce",
]
Speed = Literal["slow", "normal", "fast"]
Size = Literal["small", "medium", "large"]
GroundColour = Literal["black", "white", "gray", "brown"]

SHAPES: tuple[Shape, ...] = get_args(Shape)
COLOURS: tuple[Colour, ...] = get_args(Colour)
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
MOTIONS: tuple[Motion, ...] = get_args(Motion)
SPEEDS: tuple[Speed, ...] = get_args(Speed)
SIZES: tuple[Size, ...] = get_args(Size)
GROUND_COLOURS: tuple[GroundColour, ...] = get_args(GroundColour)

_DIAGONAL = 0.5**0.5
UNIT_VECTORS: Mapping[Motion, tuple[float, float]] = {
    "right": (1.0, 0.0),
    "left": (-1.0, 0.0),
    "up": (0.0, -1.0),
    "down": (0.0, 1.0),
    "up-right": (_DIAGONAL, -_DIAGONAL),
    "up-left": (-_DIAGONAL, -_DIAGONAL),
    "down-right": (_DIAGONAL, _DIAGONAL),
    "down-left": (-_DIAGONAL, _DIAGONAL),
}
"""(x, y) of each direction."""

COLOUR_RGB: Mapping[Colour, tuple[int, int, int]] = {
    "red": (220, 30, 35),
    "orange": (255, 140, 0),
    "yellow": (250, 230, 40),
    "green": (20, 160, 60),
    "cyan": (40, 210, 225),
    "blue": (35, 65, 225),
    "purple": (140, 40, 180),
    "pink": (255, 130, 190),
}
GROUND_RGB: Mapping[GroundColour, tuple[int, int, int]] = {
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "gray": (128, 128, 128),
    "brown": (95, 60, 35),
}

SIZE_RADIUS: Mapping[Size, tuple[float, float]] = {
    "small": (0.08, 0.12),
    "medium": (0.13, 0.17),
    "large": (0.19, 0.25),
}
"""Range of a thing's radius."""
SPEED_DISTANCE: Mapping[Speed, tuple[float, float]] = {
    "slow": (0.13, 0.18),
    "normal": (0.27, 0.36),
    "fast": (0.45, 0.55),
}
"""Range of the way that a thing goes in a whole clip, as far as it fits into the frame."""
REACH: Mapping[Shape, float] = {"circle": 1.0, "square": 1.23, "triangle": 1.3, "star": 1.3}
"""Distance of a shape's farthest point from its centre, in radii."""
TURN = 0.25
"""Turns, clockwise, that `rotate` makes in a clip."""
GROWTH = 1.8
"""Factor between the first and the last radius of `grow`; `shrink` is its reverse."""
NUM_BOUNCES = 2
"""Arcs of `bounce` in a clip."""


@dataclass(frozen=True, kw_only=True)
class Thing:
    """A shape with its colour and its motion.

    x, y: centre in the first frame. radius: the largest that it has during the clip; a circle's
    radius, and for the other shapes see `render`. distance: the way that it goes during the
    clip, the height of its arcs for `bounce`, 0 for the motions on the spot. angle: its turn in
    the first frame, clockwise, in turns.
    """

    shape: Shape
    colour: Colour
    motion: Motion
    speed: Speed
    size: Size
    x: float
    y: float
    radius: float
    distance: float = 0.0
    angle: float = 0.0

    def __post_init__(self) -> None:
        if self.shape == "circle" and self.motion == "rotate":
            raise ValueError("a circle that rotates looks like one that stays: take another motion")
        if not 0 < self.radius <= 1:
            raise ValueError(f"radius {self.radius} is not in (0, 1]")

    @property
    def moves(self) -> bool:
        """Whether its centre moves, so that it has a speed to speak of."""
        return self.motion in DIRECTIONS or self.motion == "bounce"


@dataclass(frozen=True, kw_only=True)
class Ground:
    """The background: a plain colour, or a gradient from the first row's to the last row's."""

    top: GroundColour
    bottom: GroundColour

    @classmethod
    def plain(cls, colour: GroundColour) -> Ground:
        return cls(top=colour, bottom=colour)

    @property
    def is_plain(self) -> bool:
        return self.top == self.bottom


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A clip: things in the order they are painted, the ground, and the size of the frames."""

    things: tuple[Thing, ...]
    ground: Ground
    num_frames: int = 17
    height: int = 64
    width: int = 64
    fps: int = 25

    def __post_init__(self) -> None:
        if not 1 <= len(self.things) <= 2:
            raise ValueError(f"a scene has one or two things, not {len(self.things)}")
        for name in ("num_frames", "height", "width", "fps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} is below 1")
