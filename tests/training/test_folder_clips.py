"""Videos of a folder: read, cut, held out; what is broken is reported and skipped."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from stepvideo_core.errors import InvalidRequest
from stepvideo_core.video import open_writer
from stepvideo_training.folder_clips import FolderClips, cover, read_index
from stepvideo_training.randomness import SampleRandom
from stepvideo_training.settings import DataSettings


def save_video(path: Path, colour: int, num_frames: int = 24) -> None:
    frames = torch.full((num_frames, 64, 96, 3), colour, dtype=torch.uint8)
    with open_writer(
        path, height=64, width=96, fps=25, crop=False, denoise=False, metadata={}, latents=None
    ) as writer:
        writer.write(frames)


def index(folder: Path, rows: list[object]) -> None:
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    (folder / "data.jsonl").write_text(text + "\n", encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, colour in enumerate((40, 200)):
        save_video(tmp_path / f"{number}.mp4", colour)
    save_video(tmp_path / "short.mp4", 100, num_frames=4)
    (tmp_path / "broken.mp4").write_bytes(b"no video at all")
    rows = [
        {"file": "0.mp4", "captions": ["dark", "暗"]},
        {"file": "1.mp4", "captions": "light"},
        {"file": "short.mp4", "captions": ["short"]},
        {"file": "broken.mp4", "captions": ["broken"]},
        {"file": "missing.mp4", "captions": ["missing"]},
    ]
    index(tmp_path, rows)
    return tmp_path


def test_clips_are_read_and_broken_ones_reported_once(folder: Path) -> None:
    reports: list[str] = []
    data = DataSettings(source="folder", folder=str(folder), num_frames=9, height=32, width=32)
    clips = FolderClips(data, reports.append)
    found = [clips.training_clip(SampleRandom(0, step, 0)) for step in range(20)]
    found += [clips.held_out_clip(SampleRandom(0, step, 0)) for step in range(3)]
    for clip in found:
        assert clip.video_TCHW.shape == (9, 3, 32, 32)
        level = 40 if clip.captions == ("dark", "暗") else 200
        assert np.isclose(float(clip.video_TCHW.mean()), level / 127.5 - 1, atol=0.06)
    assert {clip.captions for clip in found} == {("dark", "暗"), ("light",)}
    assert len(reports) == len(set(reports)) == 3
    assert any("short.mp4 is skipped: it has 4 frames, fewer than 9" in text for text in reports)
    assert any("broken.mp4 is skipped" in text for text in reports)


def test_the_same_sample_is_the_same_clip(folder: Path) -> None:
    data = DataSettings(source="folder", folder=str(folder), num_frames=9, height=32, width=32)
    one, two = (FolderClips(data, lambda text: None) for _ in range(2))
    for clips in (one, two):
        for step in (3, 1):
            clips.training_clip(SampleRandom(0, step, 0))
    sample = SampleRandom(0, 2, 0)
    assert torch.equal(one.training_clip(sample).video_TCHW, two.training_clip(sample).video_TCHW)


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    index(tmp_path, [{"file": "gone.mp4", "captions": ["a"]}])
    data = DataSettings(source="folder", folder=str(tmp_path))
    with pytest.raises(InvalidRequest, match="no video of"):
        FolderClips(data, lambda text: None).training_clip(SampleRandom(0, 0, 0))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{", "jsonl:2 is not valid JSON"),
        ({"file": "a.mp4"}, "jsonl:2 must be"),
        ({"file": 3, "captions": ["a"]}, "jsonl:2 must be"),
        ({"file": "a.mp4", "captions": []}, "jsonl:2 must be"),
        ([1], "jsonl:2 must be"),
    ],
)
def test_a_broken_index_is_named_by_line(tmp_path: Path, row: object, words: str) -> None:
    index(tmp_path, [{"file": "a.mp4", "captions": ["a"]}, row])
    with pytest.raises(InvalidRequest, match=words):
        read_index(tmp_path)


def test_no_index_and_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="cannot be read"):
        read_index(tmp_path)
    index(tmp_path, [""])
    with pytest.raises(InvalidRequest, match="names no video"):
        read_index(tmp_path)


def test_cover_keeps_the_middle() -> None:
    video = torch.zeros(1, 3, 10, 40)
    video[..., 18:22] = 1.0
    cut = cover(video, 10, 10)
    assert cut.shape == (1, 3, 10, 10)
    assert cut[0, 0, 0].tolist() == [0, 0, 0, 1, 1, 1, 1, 0, 0, 0]
    assert cover(video, 20, 20).shape == (1, 3, 20, 20)
