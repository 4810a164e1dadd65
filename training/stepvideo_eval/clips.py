"""Clips to reconstruct: held-out scenes of the world, or the videos of a folder."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor

from stepvideo_core.config import VAEConfig
from stepvideo_core.errors import InvalidRequest
from stepvideo_eval.prompts import WORLDS
from stepvideo_world.render import render
from stepvideo_world.sample import Distribution
from stepvideo_world.scene import Scene
from stepvideo_world.split import held_out_scene

SUFFIXES = (".mp4", ".webm", ".mkv", ".mov", ".avi", ".gif")


@dataclass(frozen=True, kw_only=True)
class Clip:
    """frames_THWC: uint8 [T, H, W, 3] of a length and size that the VAE takes.

    scene: what it shows, if that is known.
    """

    name: str
    frames_THWC: Tensor
    scene: Scene | None = None


@dataclass(frozen=True, kw_only=True)
class Unusable:
    """A file that is no clip, and why."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Size:
    """Frames, and their sides in pixels."""

    num_frames: int
    height: int
    width: int

    def of(self, distribution: Distribution) -> Distribution:
        """The distribution with clips of this size."""
        return replace(distribution, **vars(self))


def held_out_clips(count: int, seed: int, world: str, size: Size) -> Iterator[Clip]:
    """Renders of compositions that training never shows."""
    distribution = size.of(WORLDS[world])
    rng = np.random.default_rng(seed)
    for number in range(1, count + 1):
        scene = held_out_scene(rng, distribution)
        thing = scene.things[0]
        name = f"{number:04d} {thing.colour} {thing.shape} {thing.motion}"
        yield Clip(name=name, frames_THWC=torch.from_numpy(render(scene)), scene=scene)


def video_files(folder: Path) -> list[Path]:
    """The videos of a folder, by name; InvalidRequest if it has none."""
    if not folder.is_dir():
        raise InvalidRequest(f"--reconstruct {folder} is no folder; give one, or held-out")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not found:
        raise InvalidRequest(f"--reconstruct {folder} has no videos ({', '.join(SUFFIXES)})")
    return found


def read_clip(path: Path, vae: VAEConfig, max_frames: int) -> Clip | Unusable:
    """The beginning of a video, cut to whole chunks and, around the centre, to whole latent cells.

    max_frames: no more than these are read.
    """
    frames = []
    try:
        with av.open(str(path.absolute())) as container:
            for frame in itertools.islice(container.decode(video=0), max_frames):
                frames.append(frame.to_ndarray(format="rgb24"))
    except (OSError, av.error.FFmpegError, IndexError) as error:
        return Unusable(reason=f"{path} cannot be decoded: {error}")
    if not frames:
        return Unusable(reason=f"{path} has no frames")
    video = torch.from_numpy(np.stack(frames))
    kept = vae.pixel_frames(vae.latent_frames(len(video)))
    factor = vae.spatial_factor
    height, width = (side // factor * factor for side in video.shape[1:3])
    if not height or not width:
        found = f"{video.shape[2]}x{video.shape[1]}"
        return Unusable(reason=f"{path} is {found}; both sides must be at least {factor}")
    top, left = (video.shape[1] - height) // 2, (video.shape[2] - width) // 2
    cut = video[:kept, top : top + height, left : left + width]
    return Clip(name=path.name, frames_THWC=cut.contiguous())
