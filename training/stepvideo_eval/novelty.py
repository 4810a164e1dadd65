"""Whether unconditional samples are copies of training clips: distances to the nearest of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stepvideo_eval.clips import Size, held_out_clips
from stepvideo_eval.distance import nearest, thumbnail
from stepvideo_eval.prompts import WORLDS
from stepvideo_training.clips import WorldClips
from stepvideo_training.latent_set import transformer_samples
from stepvideo_training.settings import DataSettings
from stepvideo_world.render import render
from stepvideo_world.scene import Scene
from stepvideo_world.split import training_scene

NUM_CONTROLS = 200
_CONTROL_SEED = 10**6


def learnt_thumbnails(training: Mapping[str, Any], count: int) -> Iterator[Tensor] | None:
    """Thumbnails of the first clips that a model's transformer was really trained on.

    training: the note that training leaves in a model's `stepvideo.json`. None if the clips were
    not of the procedural world, so that they cannot be drawn again.
    """
    config = training["config"]
    data = DataSettings(**config["data"])
    if data.source != "world":
        return None
    samples = transformer_samples(config["seed"], min(count, config["dit"]["num_clips"]))
    clips = WorldClips(data)
    return (_thumbnail(clips.training_scene(sample)) for sample in samples)


def drawn_thumbnails(count: int, world: str, seed: int, size: Size) -> Iterator[Tensor]:
    """Thumbnails of clips drawn afresh from the world's training half."""
    distribution = size.of(WORLDS[world])
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield _thumbnail(training_scene(rng, distribution))


def _thumbnail(scene: Scene) -> Tensor:
    return thumbnail(torch.from_numpy(render(scene)))


def control_thumbnails(world: str, size: Size, count: int = NUM_CONTROLS) -> list[Tensor]:
    """Thumbnails of held-out clips."""
    clips = held_out_clips(count, _CONTROL_SEED, world, size)
    return [thumbnail(clip.frames_THWC) for clip in clips]


def compare(
    samples: Sequence[Tensor], controls: Sequence[Tensor], references: Iterable[Tensor]
) -> dict[str, Any]:
    """The samples' distances to the nearest reference beside those of real clips not trained on.

    samples, controls, references: thumbnails of generated videos, of clips that training cannot
    have shown, and of training clips. Of a model that copies, samples are much closer to a
    training clip than an unseen clip is: a ratio far below 1, many closer than every control.
    """
    distances, _ = nearest(torch.stack([*samples, *controls]), references)
    found, usual = distances[: len(samples)], distances[len(samples) :]
    return {
        "controls": len(usual),
        "median_distance": float(found.median()),
        "median_distance_of_controls": float(usual.median()),
        "ratio": float(found.median() / usual.median()),
        "closer_than_every_control": int((found < usual.min()).sum()),
        "distances": [float(value) for value in found],
    }
