"""What a pipeline returns: frames, latents, and how they came about."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from stepvideo_core.video import open_writer


@dataclass(frozen=True)
class VideoResult:
    """A finished video.

    frames: uint8 [T, H, W, 3] on the CPU, before any crop or filter. latents: the final latents,
    float32 [1, F, C, h, w] on the CPU. record: prompt, seed, settings, plan, timings, versions.
    notes: what was rounded or cut on the way.
    """

    frames: Tensor
    latents: Tensor
    fps: int
    record: dict[str, Any]
    notes: list[str]

    def save(
        self, path: str | Path, *, crop: bool | None = None, denoise_filter: bool | None = None
    ) -> Path:
        """Write the video by extension: .mp4, .webm, .gif, .safetensors, or a folder of PNGs.

        crop, denoise_filter: the official finishing of saved videos; None means what the model
        asks for. Raises OutputError if the file cannot be written.
        """
        finishing = self.record["finishing"]
        height, width = self.frames.shape[1:3]
        with open_writer(
            Path(path),
            height=height,
            width=width,
            fps=self.fps,
            crop=finishing["crop"] if crop is None else crop,
            denoise=finishing["denoise_filter"] if denoise_filter is None else denoise_filter,
            metadata=self.record,
            latents=self.latents,
        ) as writer:
            writer.write(self.frames)
        return Path(path)
