"""Whether a clip shows what its prompt names, attribute by attribute, by classical vision."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from stepvideo_eval.attributes import ThingSeen, describe, ground_of
from stepvideo_eval.background import fit_background
from stepvideo_eval.tracking import find_things
from stepvideo_world.grammar import Named, ThingNamed
from stepvideo_world.scene import Ground, Scene

Attribute = Literal["count", "colour", "shape", "motion", "speed", "size", "background"]
ATTRIBUTES: tuple[Attribute, ...] = get_args(Attribute)
_OF_THINGS: tuple[Attribute, ...] = ("colour", "shape", "motion", "speed", "size")

UNCLEAR, NOTHING = "unclear", "nothing"
"""What was seen where the world has no word for it, and where there was no thing."""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What a clip shows. things: at most two, the larger first; num_things: how many there are."""

    ground: Ground | None
    things: tuple[ThingSeen, ...]
    num_things: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One value that the prompt names, and what is seen in its place."""

    attribute: Attribute
    named: str
    seen: str

    @property
    def right(self) -> bool:
        return self.named == self.seen


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Everything that a prompt names, compared."""

    comparisons: tuple[Comparison, ...]

    @property
    def outcomes(self) -> dict[Attribute, bool]:
        """For each attribute that the prompt names whether all its values are right."""
        return {
            attribute: all(each.right for each in self.comparisons if each.attribute == attribute)
            for attribute in ATTRIBUTES
            if any(each.attribute == attribute for each in self.comparisons)
        }

    @property
    def right(self) -> bool:
        """Whether all of it is."""
        return all(each.right for each in self.comparisons)

    def as_json(self) -> dict[str, Any]:
        """{right, outcomes, wrong: what was named and seen where they differ}."""
        return {
            "right": self.right,
            "outcomes": self.outcomes,
            "wrong": [vars(each) for each in self.comparisons if not each.right],
        }


def observe(video_THWC: NDArray[np.uint8]) -> Observation:
    """Look at a clip: uint8 [T, H, W, 3], of any length and size.

    Single-threaded and without randomness; tens of milliseconds for 17 frames of 64x64.
    """
    frames_THWC = video_THWC.astype(np.float32)
    background = fit_background(frames_THWC)
    tracks, num_things = find_things(frames_THWC, background)
    return Observation(
        ground=ground_of(background),
        things=tuple(describe(track) for track in tracks),
        num_things=num_things,
    )


def everything(scene: Scene) -> Named:
    """All that a scene shows, as a caption that leaves nothing out would name it."""
    things = tuple(
        ThingNamed(
            shape=thing.shape,
            colour=thing.colour,
            motion=thing.motion,
            speed=thing.speed if thing.moves else None,
            size=thing.size,
        )
        for thing in scene.things
    )
    return Named(language="en", things=things, ground=scene.ground)


def judge(named: Named, seen: Observation) -> Verdict:
    """Compare what a prompt names with what is seen; what it does not name is not judged.

    The things of the prompt are matched with those of the clip in whichever order fits best.
    """
    count = Comparison(attribute="count", named=str(len(named.things)), seen=str(seen.num_things))
    missing = len(named.things) - len(seen.things)
    candidates: list[ThingSeen | None] = [*seen.things, *([None] * max(0, missing))]
    orders = itertools.permutations(candidates, len(named.things))
    things = max(
        ([*_compare(named.things, order)] for order in orders),
        key=lambda comparisons: sum(each.right for each in comparisons),
    )
    grounds = []
    if named.ground is not None:
        grounds = [
            Comparison(
                attribute="background",
                named=ground_text(named.ground),
                seen=ground_text(seen.ground),
            )
        ]
    return Verdict(comparisons=(count, *things, *grounds))


def _compare(named: tuple[ThingNamed, ...], seen: tuple[ThingSeen | None, ...]) -> list[Comparison]:
    found = []
    for wanted, thing in zip(named, seen, strict=True):
        shown: Mapping[str, str | None] = {} if thing is None else vars(thing)
        for attribute in _OF_THINGS:
            value = getattr(wanted, attribute)
            if value is not None:
                seen_value = NOTHING if thing is None else shown[attribute] or UNCLEAR
                found.append(Comparison(attribute=attribute, named=value, seen=seen_value))
    return found


def ground_text(ground: Ground | None) -> str:
    """`white`, `white to black`, or `unclear`."""
    if ground is None:
        return UNCLEAR
    return ground.top if ground.is_plain else f"{ground.top} to {ground.bottom}"
