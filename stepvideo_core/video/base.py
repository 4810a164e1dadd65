"""What all writers of frames share: checks, the crop, and all-or-nothing files."""

from __future__ import annotations

import contextlib
import errno
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stepvideo_core.checkpoints.files import atomic_path
from stepvideo_core.errors import OutputError
from stepvideo_core.video.pixels import Crop
from stepvideo_core.video.record import sidecar_path, to_json

Frames = npt.NDArray[np.uint8]
"""Frames [t, h, w, 3], cropped and contiguous."""


class FrameWriter(ABC):
    """Writes one video, some frames at a time; a context manager that gives all or nothing.

    When the block ends well, the output is complete under its name, with its record beside it. If
    anything is raised, nothing new remains and an older output of that name is untouched; the
    caller's own exceptions go on unchanged. Nothing is created before the block begins.
    """

    def __init__(
        self,
        path: Path,
        *,
        height: int,
        width: int,
        crop: Crop | None,
        metadata: Mapping[str, Any],
    ) -> None:
        """height, width: of the frames that come in. crop: rows and columns to keep of them.

        Raises TypeError for metadata that JSON cannot hold.
        """
        self.path = path
        self.num_frames = 0
        """Frames taken so far."""
        self._shape_in = (height, width, 3)
        self._crop = crop or (slice(0, height), slice(0, width))
        self._metadata = metadata
        self._sidecar_text = to_json(metadata, indent=2) + "\n"
        self._stack = contextlib.ExitStack()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames in the output."""
        rows, columns = self._crop
        return rows.stop - rows.start, columns.stop - columns.start

    def write(self, frames_THWC: Tensor) -> None:
        """Append frames: uint8 [t, H, W, 3], any device, any t.

        Raises OutputError if the output cannot take them (disk full); ValueError if they are not
        of the size that was announced.
        """
        if frames_THWC.dtype != torch.uint8 or tuple(frames_THWC.shape[1:]) != self._shape_in:
            raise ValueError(
                f"frames must be uint8 [t, {', '.join(map(str, self._shape_in))}], not "
                f"{frames_THWC.dtype} {list(frames_THWC.shape)}"
            )
        rows, columns = self._crop
        frames = np.ascontiguousarray(frames_THWC.cpu().numpy()[:, rows, columns])
        with self._output_errors():
            self._append(frames)
        self.num_frames += len(frames)

    def __enter__(self) -> FrameWriter:
        """Open the temporary files; OutputError if that fails."""
        with self._nothing_left():
            self._begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish and rename, or throw everything away; OutputError if finishing fails."""
        if error is not None:
            self._abandon(error)
            return
        with self._nothing_left():
            if not self.num_frames:
                raise ValueError(f"no frame was written to {self.path}")
            self._finish()
            self._stack.close()

    @abstractmethod
    def _begin(self) -> None:
        """Open temporary files; what must be undone goes on `_stack`."""

    @abstractmethod
    def _append(self, frames: Frames) -> None:
        """Encode frames; `num_frames` counts those before them."""

    @abstractmethod
    def _finish(self) -> None:
        """Complete the temporary files; closing `_stack` then renames them."""

    def _temporary_file(self) -> Path:
        """A name that becomes `path` at the end; the record goes ahead into its own."""
        sidecar = self._stack.enter_context(atomic_path(sidecar_path(self.path)))
        sidecar.write_text(self._sidecar_text, encoding="utf-8")
        return self._stack.enter_context(atomic_path(self.path))

    @contextlib.contextmanager
    def _output_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, av.error.FFmpegError) as error:
            # FFmpeg has errors of its own, beside those of the operating system.
            reason = error.strerror or str(error)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                reason += "; free some space or name an output on another disk"
            raise OutputError(f"{self.path} cannot be written: {reason}") from error

    @contextlib.contextmanager
    def _nothing_left(self) -> Iterator[None]:
        try:
            with self._output_errors():
                yield
        except BaseException as error:
            self._abandon(error)
            raise

    def _abandon(self, error: BaseException) -> None:
        """Undo `_begin`; the error goes on by itself.

        The atomic helpers take every OSError for a failed write, also one that the caller's model
        raised while it computed the next frames, so what they make of it is dropped; and what goes
        wrong in cleaning up must not hide the error.
        """
        with contextlib.suppress(OSError, OutputError):
            self._stack.__exit__(type(error), error, error.__traceback__)
