"""Frames come in pieces; how they are cut must not matter, and they must not pile up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stepvideo_core.errors import OutputError
from stepvideo_core.video import sidecar_path


def test_uneven_pieces_give_the_same_output(
    clips: Any, kind: str, output: Path, tmp_path: Path
) -> None:
    frames = clips.noise(11)
    whole = clips.read(clips.save(tmp_path / "whole" / output.name, frames))
    with clips.writer(output, frames) as writer:
        for piece in frames.split([1, 5, 0, 3, 2]):
            writer.write(piece)
        assert writer.num_frames == 11
    np.testing.assert_array_equal(clips.read(output), whole)
    if kind in ("png", "safetensors"):
        np.testing.assert_array_equal(whole, frames.numpy())


def test_the_same_frames_give_the_same_file(clips: Any, output: Path, tmp_path: Path) -> None:
    frames = clips.smooth(12, 64, 64)
    first = clips.tree(clips.save(tmp_path / "first" / output.name, frames).parent)
    kept = []
    for number in range(4):
        # With its default settings, x264 made other files when the heap looked different.
        kept.append(torch.full((3001 * 4**number,), number, dtype=torch.uint8))
        again = clips.save(tmp_path / str(number) / output.name, frames)
        assert clips.tree(again.parent) == first


def test_frames_of_any_strides(clips: Any, output: Path, tmp_path: Path) -> None:
    frames = clips.noise(4)
    turned = frames.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)
    assert not turned.is_contiguous()
    straight = clips.read(clips.save(tmp_path / "straight" / output.name, frames))
    np.testing.assert_array_equal(clips.read(clips.save(output, turned)), straight)


@pytest.mark.parametrize("kind", ["mp4", "webm"])
def test_frames_leave_memory_while_the_block_runs(clips: Any, output: Path) -> None:
    frames = clips.noise(90, 96, 128)
    # At five frames a second, because a webm keeps up to five seconds together.
    with clips.writer(output, frames, fps=5) as writer:
        writer.write(frames)
        sizes = [path.stat().st_size for path in output.parent.iterdir() if path.suffix != ".json"]
        # The encoders look some fifty frames ahead; the first ones must be on the disk by now.
        assert max(sizes) > 200_000
        assert not output.exists()


@pytest.mark.parametrize(
    "frames",
    [
        torch.zeros(1, 3, 48, 64, dtype=torch.uint8),
        torch.zeros(1, 48, 64, 3),
        torch.zeros(1, 64, 48, 3, dtype=torch.uint8),
        torch.zeros(48, 64, 3, dtype=torch.uint8),
    ],
    ids=["channels-first", "float", "turned", "no-time"],
)
def test_wrong_frames_are_our_bug(clips: Any, output: Path, frames: torch.Tensor) -> None:
    with (
        pytest.raises(ValueError, match=r"must be uint8 \[t, 48, 64, 3\]"),
        clips.writer(output, clips.noise(1)) as writer,
    ):
        writer.write(frames)
    assert not list(output.parent.iterdir())


def test_a_video_without_frames_is_our_bug(clips: Any, output: Path) -> None:
    with pytest.raises(ValueError, match="no frame"), clips.writer(output, clips.noise(1)):
        pass
    assert not list(output.parent.iterdir())


@pytest.mark.parametrize("latents", [torch.zeros(6, 4, 4, 6), torch.zeros(2, 6, 4, 4, 6)])
def test_latents_are_those_of_one_video(clips: Any, tmp_path: Path, latents: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"\[1, F, C, h, w\]"):
        clips.writer(tmp_path / "clip.safetensors", clips.noise(1), latents=latents)


def test_safetensors_needs_latents(clips: Any, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="latents"):
        clips.writer(tmp_path / "clip.safetensors", clips.noise(1), latents=None)


def test_folders_above_are_made(clips: Any, output: Path) -> None:
    path = output.parent / "a" / "b" / output.name
    assert len(clips.read(clips.save(path, clips.noise(2)))) == 2
    record = path / "video.json" if path.is_dir() else sidecar_path(path)
    assert record.is_file()
