"""Which combinations of colour, shape and motion are never seen in training."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stepvideo_world.grammar import Language, caption
from stepvideo_world.sample import WORLD, Distribution, Triple, sample_scene
from stepvideo_world.scene import Scene

_ONE_IN = 8
_SALT = "stepvideo-world-1"


def is_held_out(triple: Triple) -> bool:
    """Whether a (colour, shape, motion) is kept for evaluation: one in eight, by its hash.

    Its three values all occur in training, only not together.
    """
    digest = hashlib.sha256("/".join((_SALT, *triple)).encode()).digest()
    return int.from_bytes(digest[:4], "big") % _ONE_IN == 0


def is_for_training(triple: Triple) -> bool:
    """The rest."""
    return not is_held_out(triple)


@dataclass(frozen=True, kw_only=True)
class HeldOutPrompt:
    """A caption, and a scene that it describes."""

    text: str
    scene: Scene


def training_scene(rng: np.random.Generator, distribution: Distribution = WORLD) -> Scene:
    """A random scene without any held-out combination."""
    return sample_scene(rng, distribution, is_for_training)


def held_out_scene(rng: np.random.Generator, distribution: Distribution = WORLD) -> Scene:
    """A random scene of held-out combinations only."""
    return sample_scene(rng, distribution, is_held_out)


def held_out_prompts(
    n: int, language: Language, seed: int = 0, distribution: Distribution = WORLD
) -> list[HeldOutPrompt]:
    """n captions of held-out scenes; the first m of them are those of a smaller m."""
    return list(_prompts(n, language, np.random.default_rng(seed), distribution))


def _prompts(
    n: int, language: Language, rng: np.random.Generator, distribution: Distribution
) -> Iterator[HeldOutPrompt]:
    for _ in range(n):
        scene = held_out_scene(rng, distribution)
        yield HeldOutPrompt(text=caption(scene, language, rng), scene=scene)
