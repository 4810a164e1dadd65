"""The record of a run (prompt, seed, settings, plan, versions): inside the output and beside it.

Every format carries the same JSON object under the key `comment`; a sidecar holds it once more,
for people and for tools that know no video.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
from PIL import Image
from safetensors import SafetensorError, safe_open

from stepvideo_core.checkpoints.files import atomic_path
from stepvideo_core.errors import OutputError

COMMENT = "comment"
PNG_COMMENT = "Comment"
"""The PNG standard's own keyword, which is capitalised."""
FOLDER_RECORD = "video.json"
"""The sidecar of a folder of frames lies in the folder."""


def to_json(
    metadata: Mapping[str, Any], *, indent: int | None = None, ascii_only: bool = False
) -> str:
    """One JSON object that can be encoded as UTF-8, with the prompt's own characters if possible.

    Raises TypeError for what JSON cannot hold.
    """
    text = json.dumps(metadata, ensure_ascii=ascii_only, indent=indent)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        # Bytes of the command line that are no UTF-8 reach Python as lone surrogates, which only
        # the escaped form can carry; hours of computing must not end here.
        return json.dumps(metadata, indent=indent)
    return text


def sidecar_path(path: Path) -> Path:
    """Where the record of a file output lies: `video.mp4.json` beside `video.mp4`."""
    return path.with_name(path.name + ".json")


def write_sidecar(output: Path, metadata: Mapping[str, Any]) -> None:
    """Replace the record beside a complete output; OutputError if it cannot be written."""
    target = output / FOLDER_RECORD if output.is_dir() else sidecar_path(output)
    with atomic_path(target) as temporary:
        temporary.write_text(to_json(metadata, indent=2) + "\n", encoding="utf-8")


def read_metadata(path: Path) -> dict[str, Any]:
    """The record that `open_writer` put into an output: a video, a GIF, PNGs or safetensors.

    Falls back on the sidecar, because many tools drop the comment when they touch a video.
    Raises OutputError if there is no such file, or no record in it and none beside it.
    """
    if os.path.isdir(path):
        inside, sidecar = sorted(path.glob("frame_*.png"))[:1], path / FOLDER_RECORD
    elif path.is_file():
        inside, sidecar = [path], sidecar_path(path)
    else:
        raise OutputError(f"{path} does not exist, so no record can be read from it")
    for file in inside:
        record = _parse(_comment(file))
        if record is not None:
            return record
    try:
        record = _parse(sidecar.read_bytes()) if sidecar.is_file() else None
    except OSError as error:
        raise OutputError(f"{sidecar} cannot be read: {error.strerror}") from error
    if record is None:
        raise OutputError(
            f"{path} has no record of a run, neither inside nor in {sidecar.name}; only outputs "
            "of stepvideo carry one"
        )
    return record


def _comment(path: Path) -> str | bytes | None:
    """The text under the comment key; OutputError if the file is not what its name says."""
    try:
        match path.suffix.lower():
            case ".png" | ".gif":
                with Image.open(path) as image:
                    return image.info.get(PNG_COMMENT, image.info.get(COMMENT))
            case ".safetensors":
                with safe_open(path, framework="pt") as tensors:
                    return (tensors.metadata() or {}).get(COMMENT)
            case _:
                with av.open(str(path.absolute()), "r") as container:
                    # Matroska gives its tag names back in upper case.
                    tags = {key.lower(): text for key, text in container.metadata.items()}
                    return tags.get(COMMENT)
    except (OSError, SafetensorError, UnicodeDecodeError, av.error.FFmpegError) as error:
        raise OutputError(
            f"{path} cannot be read as {path.suffix or 'a video'}: {error}"
        ) from error


def _parse(text: str | bytes | None) -> dict[str, Any] | None:
    """The JSON object in a comment; None for a comment of somebody else."""
    try:
        value = json.loads(text) if text else None
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
