"""Making frames fit the VAE: sides that it can code, and chunks of 17 frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from stepvideo_core.config import VAEConfig
from stepvideo_core.errors import InvalidRequest

Fit = Literal["crop", "resize", "exact"]
"""What happens to sides that are no multiples of the VAE's factor: `crop` cuts the rest off evenly,
`resize` scales to the nearest multiples, `exact` refuses."""


@dataclass(frozen=True, kw_only=True)
class SizeFit:
    """How frames of one size become frames that the VAE can code."""

    source: tuple[int, int]
    """Height and width."""
    target: tuple[int, int]
    fit: Fit

    @classmethod
    def plan(cls, height: int, width: int, factor: int, fit: Fit) -> SizeFit:
        """Raises InvalidRequest for a frame that is too small, or does not fit under `exact`."""
        if min(height, width) < factor:
            raise InvalidRequest(
                f"frames of {width}x{height} are too small: both sides need at least {factor} "
                "pixels"
            )
        if fit == "resize":
            target = tuple(max(round(side / factor), 1) * factor for side in (height, width))
        else:
            target = tuple(side // factor * factor for side in (height, width))
        if fit == "exact" and target != (height, width):
            raise InvalidRequest(
                f"frames of {width}x{height} cannot be coded as they are: both sides must be "
                f"multiples of {factor}; crop them to {target[1]}x{target[0]} with --fit crop, or "
                "scale them with --fit resize"
            )
        return cls(source=(height, width), target=(target[0], target[1]), fit=fit)

    @property
    def note(self) -> str | None:
        """What happens to the frames, if anything."""
        if self.source == self.target:
            return None
        verb = "scaled" if self.fit == "resize" else "cropped"
        return (
            f"frames of {self.source[1]}x{self.source[0]} are {verb} to "
            f"{self.target[1]}x{self.target[0]}"
        )

    def apply(self, frames_THWC: Tensor) -> Tensor:
        """uint8 frames [T, H, W, 3] of the target size."""
        height, width = self.target
        if self.source == self.target:
            return frames_THWC
        if self.fit == "resize":
            pixels_TCHW = frames_THWC.movedim(-1, 1).float()
            scaled = F.interpolate(pixels_TCHW, self.target, mode="bicubic", antialias=True)
            return scaled.round().clamp(0, 255).to(torch.uint8).movedim(1, -1).contiguous()
        top, left = (self.source[0] - height) // 2, (self.source[1] - width) // 2
        return frames_THWC[:, top : top + height, left : left + width]


class Chunks:
    """Frames in the chunks that the VAE codes, of which decoding makes as many frames again.

    These are whole chunks of 17 and, at the end, as many of the rest as a shorter chunk gives back
    (9 or 1 for version 2); frames beyond are left out. num_frames, num_left_out: what has become
    of the frames; final when all chunks have been taken.
    """

    def __init__(self, frames: Iterable[Tensor], config: VAEConfig, size: SizeFit) -> None:
        """frames: uint8 [H, W, 3]."""
        self._frames, self._size = frames, size
        self._lengths = [
            config.pixel_frames(latents) for latents in range(1, config.latent_chunk + 1)
        ]
        self.num_frames = self.num_left_out = 0

    def __iter__(self) -> Iterator[Tensor]:
        """uint8 [t, H, W, 3]."""
        held: list[Tensor] = []
        for frame_HWC in self._frames:
            held.append(frame_HWC)
            if len(held) == self._lengths[-1]:
                yield self._chunk(held)
                held = []
        if held:
            length = max(length for length in self._lengths if length <= len(held))
            yield self._chunk(held[:length])
            self.num_left_out = len(held) - length

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames in the chunks."""
        return self._size.target

    @property
    def notes(self) -> list[str]:
        """What became of sides and frames, where they did not fit."""
        found = [] if self._size.note is None else [self._size.note]
        if self.num_left_out:
            total = self.num_frames + self.num_left_out
            lengths = " or ".join(map(str, self._lengths[:-1]))
            found.append(
                f"the last {self.num_left_out} of {total} frames are left out: the VAE codes "
                f"chunks of {self._lengths[-1]} frames, and at the end one of {lengths}"
            )
        return found

    def _chunk(self, frames: list[Tensor]) -> Tensor:
        self.num_frames += len(frames)
        return self._size.apply(torch.stack(frames))
