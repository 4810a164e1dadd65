"""Random scenes of a stated part of the world."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from stepvideo_world.render import trajectory
from stepvideo_world.scene import (
    COLOURS,
    DIRECTIONS,
    GROUND_COLOURS,
    MOTIONS,
    REACH,
    SHAPES,
    SIZE_RADIUS,
    SIZES,
    SPEED_DISTANCE,
    SPEEDS,
    UNIT_VECTORS,
    Colour,
    Ground,
    GroundColour,
    Motion,
    Scene,
    Shape,
    Size,
    Speed,
    Thing,
)

Triple = tuple[Colour, Shape, Motion]
_X = TypeVar("_X")
_MAX_DRAWS = 1000


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """Which scenes are drawn; each choice evenly among what is listed.

    counts: how many things a scene may have. With two, both are small enough to pass each other.
    gradients: whether the ground may change from one of `grounds` to another.
    """

    shapes: tuple[Shape, ...] = SHAPES
    colours: tuple[Colour, ...] = COLOURS
    motions: tuple[Motion, ...] = MOTIONS
    speeds: tuple[Speed, ...] = SPEEDS
    sizes: tuple[Size, ...] = SIZES
    grounds: tuple[GroundColour, ...] = GROUND_COLOURS
    gradients: bool = True
    counts: tuple[int, ...] = (1, 2)
    num_frames: int = 17
    height: int = 64
    width: int = 64

    def __post_init__(self) -> None:
        for name in ("shapes", "colours", "motions", "speeds", "sizes", "grounds", "counts"):
            if not getattr(self, name):
                raise ValueError(f"{name} of the distribution is empty")
        if 2 in self.counts and self.sizes == ("large",):
            raise ValueError("two large things do not fit into a frame: allow smaller sizes")


WORLD = Distribution()
TINY = Distribution(
    colours=("red", "orange", "yellow", "green", "cyan", "blue", "purple"),
    motions=(*DIRECTIONS, "stay"),
    speeds=("normal",),
    sizes=("large",),
    grounds=("black", "white", "gray"),
    gradients=False,
    counts=(1,),
)
"""What the model `tiny` is trained on."""


def sample_scene(
    rng: np.random.Generator,
    distribution: Distribution = WORLD,
    allowed: Callable[[Triple], bool] | None = None,
) -> Scene:
    """A random scene whose things stay within the frame and do not touch one another.

    allowed: says which combinations of colour, shape and motion may be drawn; None means all.
    Raises ValueError if the distribution has no such scene.
    """
    count = _pick(rng, distribution.counts)
    for _ in range(_MAX_DRAWS):
        things = tuple(_sample_thing(rng, distribution, allowed, count) for _ in range(count))
        if count == 1 or _apart(things[0], things[1]):
            return Scene(
                things=things,
                ground=_sample_ground(rng, distribution),
                num_frames=distribution.num_frames,
                height=distribution.height,
                width=distribution.width,
            )
    raise ValueError(f"no scene of two things was found in {_MAX_DRAWS} draws")


def _sample_thing(
    rng: np.random.Generator,
    distribution: Distribution,
    allowed: Callable[[Triple], bool] | None,
    count: int,
) -> Thing:
    colour, shape, motion = _sample_triple(rng, distribution, allowed)
    sizes = [size for size in distribution.sizes if count == 1 or size != "large"]
    moves = motion in DIRECTIONS or motion == "bounce"
    step_x, step_y = (0.0, -1.0) if motion == "bounce" else UNIT_VECTORS.get(motion, (0.0, 0.0))
    for _ in range(_MAX_DRAWS):
        size, speed = _pick(rng, sizes), _pick(rng, distribution.speeds)
        radius = rng.uniform(*SIZE_RADIUS[size])
        slowest, fastest = SPEED_DISTANCE[speed] if moves else (0.0, 0.0)
        reach = radius * REACH[shape]
        free = max(1.0 - 2.0 * reach, 0.0)
        if moves:
            fastest = min(fastest, free / max(abs(step_x), abs(step_y)))
        if slowest <= fastest:
            distance = rng.uniform(slowest, fastest)
            return Thing(
                shape=shape,
                colour=colour,
                motion=motion,
                speed=speed if moves else "normal",
                size=size,
                x=_place(rng, reach, distance * step_x),
                y=_place(rng, reach, distance * step_y),
                radius=radius,
                distance=distance,
            )
    raise ValueError(f"nothing of sizes {sizes} can go {motion} as fast as the distribution wants")


def _sample_triple(
    rng: np.random.Generator,
    distribution: Distribution,
    allowed: Callable[[Triple], bool] | None,
) -> Triple:
    for _ in range(_MAX_DRAWS):
        triple = (
            _pick(rng, distribution.colours),
            _pick(rng, distribution.shapes),
            _pick(rng, distribution.motions),
        )
        if triple[1:] != ("circle", "rotate") and (allowed is None or allowed(triple)):
            return triple
    raise ValueError(f"no allowed colour, shape and motion was found in {_MAX_DRAWS} draws")


def _sample_ground(rng: np.random.Generator, distribution: Distribution) -> Ground:
    top = _pick(rng, distribution.grounds)
    others = [colour for colour in distribution.grounds if colour != top]
    if distribution.gradients and others and rng.random() < 0.5:
        return Ground(top=top, bottom=_pick(rng, others))
    return Ground.plain(top)


def _place(rng: np.random.Generator, reach: float, step: float) -> float:
    """A start such that [start, start + step] keeps `reach` from both borders."""
    low, high = reach - min(step, 0.0), 1.0 - reach - max(step, 0.0)
    return float(rng.uniform(low, high)) if low < high else (low + high) / 2


def _apart(first: Thing, second: Thing) -> bool:
    """Whether two things keep a gap between them all the time."""
    num_frames = 33
    gap_T2 = trajectory(first, num_frames)[0] - trajectory(second, num_frames)[0]
    reach = sum(thing.radius * REACH[thing.shape] for thing in (first, second))
    return bool((np.hypot(gap_T2[:, 0], gap_T2[:, 1]) > reach + 0.04).all())


def _pick(rng: np.random.Generator, options: Sequence[_X]) -> _X:
    return options[int(rng.integers(len(options)))]
