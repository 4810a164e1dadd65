"""All or nothing: also when the caller fails, the user interrupts, or the disk is full."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stepvideo_core.errors import OutputError


@pytest.mark.parametrize("error", [FileNotFoundError("the weights"), KeyboardInterrupt()])
def test_an_error_in_the_middle_leaves_nothing_and_is_not_dressed_up(
    clips: Any, output: Path, error: BaseException
) -> None:
    with pytest.raises(type(error)) as caught, clips.writer(output, clips.noise(4)) as writer:
        writer.write(clips.noise(4))
        assert list(output.parent.iterdir()), "the block should have something to clean up"
        raise error
    assert caught.value is error
    assert not list(output.parent.iterdir())


@pytest.mark.parametrize("kind", ["mp4", "webm", "gif", "safetensors"])
def test_an_error_keeps_the_older_output(clips: Any, output: Path) -> None:
    clips.save(output, clips.smooth(3))
    before = clips.tree(output.parent)
    assert len(before) == 2
    with (
        pytest.raises(ZeroDivisionError),
        clips.writer(output, clips.noise(4), metadata={"prompt": "newer"}) as writer,
    ):
        writer.write(clips.noise(4))
        raise ZeroDivisionError
    assert clips.tree(output.parent) == before


@pytest.mark.parametrize("kind", ["mp4", "webm", "gif", "safetensors"])
def test_a_good_run_replaces_the_older_output_and_its_record(clips: Any, output: Path) -> None:
    clips.save(output, clips.smooth(3))
    clips.save(output, clips.smooth(5), metadata={"prompt": "newer"})
    assert len(clips.read(output)) == 5
    names = {path.name for path in output.parent.iterdir()}
    assert names == {output.name, f"{output.name}.json"}
    assert "newer" in (output.parent / f"{output.name}.json").read_text(encoding="utf-8")


def test_a_folder_with_files_is_never_touched(clips: Any, tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    clips.save(folder, clips.smooth(3))
    before = clips.tree(tmp_path)
    with pytest.raises(OutputError, match="frames is a folder with files in it"):
        clips.writer(folder, clips.noise(2))
    assert clips.tree(tmp_path) == before


def test_nothing_is_made_before_the_block(clips: Any, output: Path) -> None:
    clips.writer(output.parent / "sub" / output.name, clips.noise(1))
    assert not list(output.parent.iterdir())


def test_a_path_below_a_file_is_said(clips: Any, output: Path) -> None:
    (output.parent / "file").write_text("in the way")
    before = clips.tree(output.parent)
    with (
        pytest.raises(OutputError, match=r"file/clip.* cannot be written"),
        clips.writer(output.parent / "file" / output.name, clips.noise(1)),
    ):
        pytest.fail("the block must not begin")
    assert clips.tree(output.parent) == before


@contextlib.contextmanager
def file_size_limit(num_bytes: int) -> Iterator[None]:
    """No file may grow beyond this; Python ignores the signal, so writing gives an error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("share", [0.4, 1.0], ids=["early", "last-byte"])
def test_a_failing_disk_leaves_nothing(
    clips: Any, output: Path, tmp_path: Path, share: float
) -> None:
    frames = clips.noise(6)
    whole = clips.save(tmp_path / "whole" / output.name, frames)
    files = [file for file in whole.rglob("*.png")] or [whole]
    limit = int(max(file.stat().st_size for file in files) * share) - 1
    output = tmp_path / "out" / output.name
    with pytest.raises(OutputError, match=r"clip.* cannot be written: File too large"):
        with file_size_limit(limit), clips.writer(output, frames) as writer:
            writer.write(frames)
    assert not list(output.parent.iterdir())


def test_a_full_disk_is_said_and_leaves_nothing(clips: Any, kind: str, small_disk: Path) -> None:
    frames = clips.noise(20)
    output = small_disk / clips.names[kind]
    with (
        pytest.raises(OutputError, match=r"clip.* cannot be written: No space left.*free some"),
        clips.writer(output, frames) as writer,
    ):
        for piece in frames.split(3):
            writer.write(piece)
    assert not list(small_disk.iterdir())


def test_a_disk_that_fills_up_keeps_the_older_output(clips: Any, small_disk: Path) -> None:
    output = small_disk / "clip.mp4"
    clips.save(output, clips.smooth(3))
    before = clips.tree(small_disk)
    with (
        pytest.raises(OutputError, match="No space left"),
        clips.writer(output, clips.noise(20)) as writer,
    ):
        writer.write(clips.noise(20))
    assert clips.tree(small_disk) == before
