"""Training clips, as floats in [-1, 1] with a caption."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from stepvideo_training.randomness import CAPTION, SCENE, WINDOW, SampleRandom
from stepvideo_training.settings import DataSettings
from stepvideo_world.grammar import caption
from stepvideo_world.render import render
from stepvideo_world.sample import TINY, WORLD, Distribution
from stepvideo_world.scene import Scene
from stepvideo_world.split import held_out_scene, training_scene
from stepvideo_world.words import LANGUAGES


@dataclass(frozen=True)
class Clip:
    """video: float32 [T, 3, H, W] in [-1, 1]; captions: several of the same clip."""

    video_TCHW: Tensor
    captions: tuple[str, ...]


class ClipSource(Protocol):
    """Gives the clip that belongs to a sample."""

    def training_clip(self, sample: SampleRandom) -> Clip:
        """A clip to learn from."""
        ...

    def held_out_clip(self, sample: SampleRandom) -> Clip:
        """A clip that is never learnt from."""
        ...


class WorldClips:
    """Clips of the procedural world, rendered when they are asked for."""

    def __init__(self, data: DataSettings, *, captions_per_clip: int = 1) -> None:
        base = TINY if data.distribution == "tiny" else WORLD
        self.distribution: Distribution = replace(
            base, num_frames=data.num_frames, height=data.height, width=data.width
        )
        self._captions_per_clip = captions_per_clip

    def training_clip(self, sample: SampleRandom) -> Clip:
        return self._clip(sample, self.training_scene(sample))

    def held_out_clip(self, sample: SampleRandom) -> Clip:
        return self._clip(sample, held_out_scene(sample.numpy(SCENE), self.distribution))

    def training_scene(self, sample: SampleRandom) -> Scene:
        """What the training clip of a sample shows."""
        return training_scene(sample.numpy(SCENE), self.distribution)

    def _clip(self, sample: SampleRandom, scene: Scene) -> Clip:
        rng = sample.numpy(CAPTION)
        texts = tuple(
            caption(scene, LANGUAGES[i % len(LANGUAGES)], rng)
            for i in range(self._captions_per_clip)
        )
        return Clip(to_video(render(scene)), texts)


def to_video(frames_THWC: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Tensor:
    """uint8 [T, H, W, 3] to float32 [T, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(frames_THWC).permute(0, 3, 1, 2).float() / 127.5 - 1


def window(video_TCHW: Tensor, num_frames: int, sample: SampleRandom) -> Tensor:
    """`num_frames` neighbouring frames from a random start; all of them if there are no more."""
    spare = max(video_TCHW.shape[0] - num_frames, 0)
    start = int(sample.numpy(WINDOW).integers(spare + 1))
    return video_TCHW[start : start + num_frames]
