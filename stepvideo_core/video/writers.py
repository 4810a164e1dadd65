"""Outputs that keep every pixel: a folder of PNG files, and safetensors with the latents."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from stepvideo_core.checkpoints.files import atomic_folder
from stepvideo_core.video.base import Frames, FrameWriter
from stepvideo_core.video.record import COMMENT, FOLDER_RECORD, PNG_COMMENT, to_json

_PNG_COMPRESSION = 3
"""Of zlib's 9 levels. The default, 6, takes about twice the time for a few per cent of size."""

_MANY_FRAMES = 10**9


class PngFolderWriter(FrameWriter):
    """frame_0000.png, frame_0001.png, … and video.json in a new folder.

    The record is also in the first frame, as UTF-8 text under the keyword Comment. Entering
    raises OutputError if the folder exists and is not empty.
    """

    def _begin(self) -> None:
        self._folder = self._stack.enter_context(atomic_folder(self.path))
        (self._folder / FOLDER_RECORD).write_text(self._sidecar_text, encoding="utf-8")

    def _append(self, frames: Frames) -> None:
        for number, frame in enumerate(frames, start=self.num_frames):
            text = PngInfo()
            if number == 0:
                text.add_itxt(PNG_COMMENT, to_json(self._metadata))
            Image.fromarray(frame).save(
                self._folder / f"frame_{number:04d}.png",
                pnginfo=text,
                compress_level=_PNG_COMPRESSION,
            )

    def _finish(self) -> None:
        """Every file is complete already."""


class SafetensorsWriter(FrameWriter):
    """`latents` float32 [1, F, C, h, w], `frames` uint8 [T, H, W, 3], the record in the header.

    The frames go straight to the disk, so the header, which comes first and states their number,
    gets its place reserved and is filled in at the end.
    """

    def __init__(
        self,
        path: Path,
        *,
        height: int,
        width: int,
        metadata: Mapping[str, Any],
        latents_BFCHW: Tensor,
    ) -> None:
        """latents_BFCHW: the final ones, any float dtype and device. Frames are never cropped.

        Raises ValueError if the latents are not those of one video.
        """
        super().__init__(path, height=height, width=width, crop=None, metadata=metadata)
        if latents_BFCHW.ndim != 5 or latents_BFCHW.shape[0] != 1:
            raise ValueError(f"latents must be [1, F, C, h, w], not {list(latents_BFCHW.shape)}")
        self._latents = latents_BFCHW.detach().to("cpu", torch.float32).numpy().astype("<f4")
        self._header_size = -(-len(self._header(_MANY_FRAMES)) // 8) * 8

    def _begin(self) -> None:
        self._file: IO[bytes] = self._stack.enter_context(self._temporary_file().open("wb"))
        self._file.write(bytes(8 + self._header_size))
        self._file.write(np.ascontiguousarray(self._latents).data)

    def _append(self, frames: Frames) -> None:
        self._file.write(frames.data)

    def _finish(self) -> None:
        # Blanks behind the JSON object are part of the format.
        header = self._header(self.num_frames).ljust(self._header_size)
        self._file.seek(0)
        self._file.write(self._header_size.to_bytes(8, "little") + header)
        self._file.close()

    def _header(self, num_frames: int) -> bytes:
        start = self._latents.nbytes
        shape = (num_frames, *self._shape_in)
        end = start + num_frames * int(np.prod(self._shape_in))
        entries = {
            "__metadata__": {COMMENT: to_json(self._metadata)},
            "latents": _entry("F32", self._latents.shape, 0, start),
            "frames": _entry("U8", shape, start, end),
        }
        return json.dumps(entries, ensure_ascii=False).encode("utf-8")


def _entry(dtype: str, shape: tuple[int, ...], start: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
