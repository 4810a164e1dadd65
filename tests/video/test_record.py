"""The record of a run comes back from inside every format, and from the sidecar."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image
from safetensors import safe_open

from stepvideo_core.errors import OutputError
from stepvideo_core.video import read_metadata, sidecar_path, write_sidecar


def sidecar_of(output: Path) -> Path:
    return output / "video.json" if output.is_dir() else sidecar_path(output)


def test_record_comes_back_from_inside(clips: Any, output: Path) -> None:
    clips.save(output, clips.smooth(2))
    sidecar_of(output).unlink()
    assert read_metadata(output) == clips.record


def test_sidecar_is_readable_json(clips: Any, output: Path) -> None:
    clips.save(output, clips.smooth(2))
    text = sidecar_of(output).read_text(encoding="utf-8")
    assert json.loads(text) == clips.record
    assert "熊猫" in text
    assert text.count("\n") > 10


def test_sidecar_can_be_replaced_when_more_is_known(clips: Any, output: Path) -> None:
    clips.save(output, clips.smooth(2))
    before = clips.tree(output.parent)
    record = clips.record | {"stages": [{"name": "decode", "seconds": 1.5}]}
    write_sidecar(output, record)
    assert json.loads(sidecar_of(output).read_text(encoding="utf-8")) == record
    after = clips.tree(output.parent)
    name = str(sidecar_of(output).relative_to(output.parent))
    assert {key for key in before | after if before.get(key) != after.get(key)} == {name}


def test_long_records_fit(clips: Any, output: Path) -> None:
    record = {"plan": [{"site": f"块.{i}", "reasons": ["x" * 100]} for i in range(1500)]}
    assert len(json.dumps(record)) > 2 * 2**16
    clips.save(output, clips.smooth(2), metadata=record)
    sidecar_of(output).unlink()
    assert read_metadata(output) == record
    assert len(clips.read(output)) == 2


def test_prompts_that_are_no_utf8_do_not_end_the_run(clips: Any, output: Path) -> None:
    record = {"prompt": "caf\udce9 熊猫"}
    clips.save(output, clips.smooth(2), metadata=record)
    assert json.loads(sidecar_of(output).read_text(encoding="utf-8")) == record
    sidecar_of(output).unlink()
    assert read_metadata(output) == record


def test_other_tools_find_it_under_comment(clips: Any, kind: str, output: Path) -> None:
    clips.save(output, clips.smooth(2))
    if kind == "png":
        with Image.open(output / "frame_0000.png") as image:
            text = image.info["Comment"]
    elif kind == "gif":
        with Image.open(output) as image:
            text = image.info["comment"].decode("ascii")
    elif kind == "safetensors":
        with safe_open(output, framework="pt") as tensors:
            text = tensors.metadata()["comment"]
    else:
        with av.open(str(output)) as container:
            text = {k.lower(): v for k, v in container.metadata.items()}["comment"]
    assert json.loads(text) == clips.record
    assert ("熊猫" in text) == (kind != "gif")  # a GIF's comment is ASCII by its standard


def test_only_the_first_png_carries_it(clips: Any, tmp_path: Path) -> None:
    clips.save(tmp_path / "clip", clips.smooth(2))
    with Image.open(tmp_path / "clip" / "frame_0001.png") as image:
        assert "Comment" not in image.info


def test_sidecar_serves_where_the_comment_was_lost(clips: Any, tmp_path: Path) -> None:
    path = tmp_path / "copy.gif"
    Image.new("RGB", (8, 8)).save(path, comment=b"made by somebody else")
    with pytest.raises(OutputError, match=r"copy\.gif has no record.*copy\.gif\.json"):
        read_metadata(path)
    sidecar_path(path).write_text(json.dumps(clips.record), encoding="utf-8")
    assert read_metadata(path) == clips.record


@pytest.mark.parametrize("name", ["gone.mp4", "gone"])
def test_missing_files_are_said(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=r"gone.* does not exist"):
        read_metadata(tmp_path / name)


@pytest.mark.parametrize("name", ["bad.mp4", "bad.gif", "bad.safetensors", "bad.txt"])
def test_broken_files_are_said(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not a video at all" * 20)
    with pytest.raises(OutputError, match=rf"{name} cannot be read"):
        read_metadata(tmp_path / name)


def test_records_that_json_cannot_hold_fail_before_anything_is_written(
    clips: Any, output: Path
) -> None:
    with pytest.raises(TypeError, match="Path is not JSON serializable"):
        clips.writer(output, clips.noise(1), metadata={"path": output})
    assert not list(output.parent.iterdir())
