"""Which output a path means, whether it can be written, and the writer for it."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from stepvideo_core.checkpoints.files import check_free_folder
from stepvideo_core.errors import OutputError
from stepvideo_core.memory.units import format_bytes
from stepvideo_core.video.base import FrameWriter
from stepvideo_core.video.encode import GIF, MP4, WEBM, EncodedWriter, GifWriter, check_encoding
from stepvideo_core.video.pixels import crop_540p
from stepvideo_core.video.record import sidecar_path
from stepvideo_core.video.writers import PngFolderWriter, SafetensorsWriter

OutputKind = Literal["mp4", "webm", "gif", "safetensors", "png"]

FPS = 25
"""Frames a second of the official videos."""

_BY_SUFFIX: dict[str, OutputKind] = {
    ".mp4": "mp4",
    ".webm": "webm",
    ".gif": "gif",
    ".safetensors": "safetensors",
    "": "png",
}
_ENCODINGS = {"mp4": MP4, "webm": WEBM, "gif": GIF}


def output_kind(path: Path) -> OutputKind:
    """The format by the name's extension; a folder, or no extension, means PNG frames.

    Raises OutputError for other extensions.
    """
    # os.path answers False where Path raises, for instance for names that are too long.
    if os.path.isdir(path):
        return "png"
    kind = _BY_SUFFIX.get(path.suffix.lower())
    if kind is None:
        raise OutputError(
            f"{path} has an extension that cannot be written, {path.suffix}; use .mp4, .webm, "
            ".gif or .safetensors, or a folder name without a dot for PNG frames"
        )
    return kind


def open_writer(
    path: Path,
    *,
    height: int,
    width: int,
    fps: float = FPS,
    crop: bool,
    denoise: bool,
    metadata: dict[str, Any],
    latents: Tensor | None,
) -> FrameWriter:
    """The writer for a path; use it in a `with` block and feed it frames of height x width.

    fps: of mp4, webm and GIF. crop: cut to 540p where `crop_540p` says so; never for safetensors.
    denoise: the official filter, for mp4 and webm only. metadata: the record of the run, a dict
    that JSON can hold; goes into the output and into a sidecar. latents: the final ones
    [1, F, C, h, w]; only safetensors stores them, and needs them.

    Raises OutputError if the format is unknown, cannot hold such frames, or cannot be encoded by
    this installation.
    """
    kind = output_kind(path)
    if kind == "safetensors":
        if latents is None:
            raise OutputError(f"{path} needs the latents beside the frames, and there are none")
        return SafetensorsWriter(
            path, height=height, width=width, metadata=metadata, latents_BFCHW=latents
        )
    kept = crop_540p(height, width) if crop else None
    if kind == "png":
        _check_folder(path)
        return PngFolderWriter(path, height=height, width=width, crop=kept, metadata=metadata)
    if kind == "gif":
        return GifWriter(
            path,
            height=height,
            width=width,
            fps=fps,
            crop=kept,
            metadata=metadata,
            encoding=GIF,
        )
    return EncodedWriter(
        path,
        height=height,
        width=width,
        fps=fps,
        crop=kept,
        metadata=metadata,
        encoding=_ENCODINGS[kind],
        denoise=denoise,
    )


def check_output(path: Path, needs_bytes: int | None = None, *, denoise: bool = False) -> None:
    """Find out before hours of computing whether `open_writer` will be able to write there.

    Really creates a file (and removes it), in the folder itself or, if that is not there yet, in
    the nearest one above. needs_bytes: an estimate of the output's size. denoise: as it will be
    given to `open_writer`.

    Raises OutputError: extension unknown, encoder missing, no folder, no permission, a folder
    with files in it, not enough space.
    """
    kind = output_kind(path)
    if kind == "png":
        _check_folder(path)
    elif os.path.isdir(sidecar_path(path)):
        raise OutputError(
            f"{sidecar_path(path)} is a folder, but the record of {path.name} will be written "
            "there; remove it or name another output"
        )
    if kind in _ENCODINGS:
        check_encoding(_ENCODINGS[kind], denoise and kind != "gif")
    folder = _nearest_folder(path)
    _try_to_write(path, folder)
    if needs_bytes is not None:
        free = shutil.disk_usage(folder).free
        if free < needs_bytes:
            raise OutputError(
                f"{path} will need about {format_bytes(needs_bytes)}, but its disk has "
                f"{format_bytes(free)} free; make room or name an output on another disk"
            )


def _check_folder(path: Path) -> None:
    """OutputError unless PNG frames can be renamed into place at `path`."""
    try:
        check_free_folder(path)
        in_use = path.exists() and (os.path.ismount(path) or path.samefile(Path.cwd()))
    except OSError as error:
        raise OutputError(f"{path} cannot be read: {error.strerror}") from error
    if in_use:
        # The finished folder takes the place of the empty one, and these cannot be replaced.
        raise OutputError(
            f"{path} is a mount point or the current folder, which frames cannot replace; name a "
            "new folder in it"
        )


def _nearest_folder(path: Path) -> Path:
    """The folder of an output, or the first one above that exists."""
    for folder in path.absolute().parents:
        if os.path.isdir(folder):
            return folder
        if os.path.lexists(folder):
            raise OutputError(
                f"{path} cannot be written: {folder} is not a folder; name another output"
            )
    raise OutputError(f"{path} cannot be written: there is no folder above it")


def _try_to_write(path: Path, folder: Path) -> None:
    try:
        # As long a name as the writers' temporary files have: file systems limit that, too.
        with tempfile.NamedTemporaryFile(
            prefix=f".{path.name}-", suffix=".part.json", dir=folder
        ) as file:
            file.write(b"stepvideo")
            file.flush()
    except OSError as error:
        way_out = "a shorter name" if error.errno == errno.ENAMETOOLONG else "another folder"
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error} (tried in {folder}); choose "
            f"{way_out}"
        ) from error
