"""Clips of a folder of videos with `data.jsonl`, one {"file", "captions"} a line.

Read with decord where it is installed, else with PyAV. A clip that cannot be read is reported once
and another takes its place.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from stepvideo_core.errors import InvalidRequest
from stepvideo_training.clips import Clip, to_video
from stepvideo_training.randomness import SCENE, SampleRandom
from stepvideo_training.settings import DataSettings

INDEX_FILE = "data.jsonl"
_HELD_OUT_ONE_IN = 20


class UnreadableClip(Exception):
    """A video cannot be used; the message says why."""


@dataclass(frozen=True)
class Entry:
    """A line of the index."""

    path: Path
    captions: tuple[str, ...]

    @property
    def is_held_out(self) -> bool:
        """One in twenty, by the hash of its name."""
        digest = hashlib.sha256(self.path.name.encode()).digest()
        return int.from_bytes(digest[:4], "big") % _HELD_OUT_ONE_IN == 0


class FolderClips:
    """Random stretches of the videos, scaled to cover the frame and cut to it."""

    def __init__(self, data: DataSettings, report: Callable[[str], None]) -> None:
        """report: told of every video that is skipped.

        Raises InvalidRequest for a missing or broken index, naming file and line.
        """
        self._data, self._report = data, report
        entries = read_index(Path(data.folder))
        held_out = [entry for entry in entries if entry.is_held_out]
        self._held_out = held_out or entries[:1]
        self._training = [entry for entry in entries if entry not in self._held_out] or entries
        self._broken: set[Path] = set()
        self._decode = _decoder()

    def training_clip(self, sample: SampleRandom) -> Clip:
        return self._clip(sample, self._training)

    def held_out_clip(self, sample: SampleRandom) -> Clip:
        return self._clip(sample, self._held_out)

    def _clip(self, sample: SampleRandom, entries: list[Entry]) -> Clip:
        rng = sample.numpy(SCENE)
        for place in rng.permutation(len(entries)):
            entry = entries[int(place)]
            if entry.path in self._broken:
                continue
            try:
                frames = self._decode(entry.path)
                if len(frames) < self._data.num_frames:
                    raise UnreadableClip(
                        f"it has {len(frames)} frames, fewer than {self._data.num_frames}"
                    )
            except UnreadableClip as error:
                self._broken.add(entry.path)
                self._report(f"{entry.path} is skipped: {error}")
                continue
            start = int(rng.integers(len(frames) - self._data.num_frames + 1))
            chosen = to_video(np.stack(frames[start : start + self._data.num_frames]))
            return Clip(cover(chosen, self._data.height, self._data.width), entry.captions)
        raise InvalidRequest(f"no video of {self._data.folder}/{INDEX_FILE} can be read")


def read_index(folder: Path) -> list[Entry]:
    """The lines of `data.jsonl`. Raises InvalidRequest, naming file and line."""
    path = folder / INDEX_FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path} cannot be read: {error}") from error
    entries = [
        _entry(folder, line, f"{path}:{number}")
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not entries:
        raise InvalidRequest(f"{path} names no video")
    return entries


def _entry(folder: Path, line: str, where: str) -> Entry:
    try:
        row: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise InvalidRequest(f"{where} is not valid JSON: {error.msg}") from None
    captions = row.get("captions") if isinstance(row, dict) else None
    if isinstance(captions, str):
        captions = [captions]
    name = row.get("file") if isinstance(row, dict) else None
    texts = captions if isinstance(captions, list) else []
    if not isinstance(name, str) or not texts or not all(isinstance(t, str) for t in texts):
        raise InvalidRequest(f'{where} must be {{"file": name, "captions": [text, ...]}}')
    return Entry(folder / name, tuple(texts))


def cover(video_TCHW: Tensor, height: int, width: int) -> Tensor:
    """Scale until the frame is filled, then cut the middle out."""
    rows, columns = video_TCHW.shape[2:]
    scale = max(height / rows, width / columns)
    size = (max(height, round(rows * scale)), max(width, round(columns * scale)))
    if size != (rows, columns):
        video_TCHW = F.interpolate(
            video_TCHW, size=size, mode="bicubic", antialias=True, align_corners=False
        ).clamp(-1, 1)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return video_TCHW[:, :, top : top + height, left : left + width].contiguous()


Frames = list[NDArray[np.uint8]]


def _decoder() -> Callable[[Path], Frames]:
    return _decode_decord if importlib.util.find_spec("decord") else _decode_av


def _decode_av(path: Path) -> Frames:
    import av

    try:
        with av.open(str(path)) as container:
            return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    except (av.FFmpegError, OSError, IndexError, ValueError) as error:
        raise UnreadableClip(str(error)) from error


def _decode_decord(path: Path) -> Frames:
    import decord

    try:
        reader = decord.VideoReader(str(path))
        return list(reader.get_batch(range(len(reader))).asnumpy())
    except (decord.DECORDError, OSError, ValueError, RuntimeError) as error:
        raise UnreadableClip(str(error)) from error
