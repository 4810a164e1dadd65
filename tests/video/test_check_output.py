"""What can be known before hours of computing is said before them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stepvideo_core.errors import OutputError
from stepvideo_core.video import MP4, check_output, outputs


def test_a_good_path_passes_and_nothing_stays(clips: Any, output: Path) -> None:
    for path in (output, output.parent / "not" / "there" / "yet" / output.name):
        check_output(path, needs_bytes=1000, denoise=True)
    assert not list(output.parent.iterdir())
    clips.save(output, clips.noise(1))


def test_relative_paths_pass(
    clips: Any, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check_output(Path(clips.names[kind]))
    clips.save(Path(clips.names[kind]), clips.noise(1))


def test_unknown_extensions(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"\.avi; use \.mp4"):
        check_output(tmp_path / "clip.avi")


def test_a_file_in_the_way(output: Path) -> None:
    (output.parent / "file").write_text("")
    for path in (output.parent / "file" / output.name, output.parent / "file" / "x" / output.name):
        with pytest.raises(OutputError, match="file is not a folder"):
            check_output(path)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="this system has no /proc")
def test_a_folder_that_takes_no_files(clips: Any, kind: str) -> None:
    # Not even the superuser may create a file there, so this works for every tester.
    path = Path("/proc") / clips.names[kind]
    with pytest.raises(OutputError, match=r"/proc/clip.* cannot be written: .*another folder"):
        check_output(path)


def test_names_that_are_too_long(clips: Any, kind: str, tmp_path: Path) -> None:
    # The name itself has 249 bytes and would do; that of the temporary file would not.
    name = "熊" * 80 + clips.names[kind].rjust(9, "_")[-17:]
    with pytest.raises(OutputError, match="a shorter name"):
        check_output(tmp_path / name)
    check_output(tmp_path / name[10:])
    clips.save(tmp_path / name[10:], clips.noise(1))


def test_a_folder_with_files(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    check_output(tmp_path / "frames")
    (tmp_path / "frames" / "holiday.jpg").write_text("foreign")
    with pytest.raises(OutputError, match="frames is a folder with files in it"):
        check_output(tmp_path / "frames")


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "frames").write_text("foreign")
    with pytest.raises(OutputError, match="is no folder"):
        check_output(tmp_path / "frames")


def test_the_current_folder_cannot_be_replaced(
    clips: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (Path("."), tmp_path):
        with pytest.raises(OutputError, match="name a new folder in it"):
            check_output(path)
        with pytest.raises(OutputError, match="name a new folder in it"):
            clips.writer(path, clips.noise(1))


def test_a_mount_point_cannot_be_replaced(small_disk: Path) -> None:
    with pytest.raises(OutputError, match="mount point"):
        check_output(small_disk)
    check_output(small_disk / "frames")


def test_a_folder_where_the_record_should_be(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4.json").mkdir()
    with pytest.raises(OutputError, match=r"clip\.mp4\.json is a folder"):
        check_output(tmp_path / "clip.mp4")


def test_too_little_space(output: Path) -> None:
    with pytest.raises(OutputError, match=r"about 1048576\.0 GiB, but its disk has .*iB free"):
        check_output(output, needs_bytes=2**50)


def test_a_missing_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(outputs._ENCODINGS, "mp4", replace(MP4, codec="no_such_encoder"))
    with pytest.raises(OutputError, match="has no no_such_encoder encoder"):
        check_output(tmp_path / "clip.mp4")
    check_output(tmp_path / "clip.webm")


def test_a_missing_filter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = replace(MP4, filters=(*MP4.filters, ("no_such_filter", "")))
    monkeypatch.setitem(outputs._ENCODINGS, "mp4", broken)
    with pytest.raises(OutputError, match="lacks the filter no_such_filter"):
        check_output(tmp_path / "clip.mp4")
