"""What each format holds, read back by somebody else's reader."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from safetensors.torch import load_file

from stepvideo_core.errors import OutputError
from stepvideo_core.video import read_metadata


@pytest.mark.parametrize("num_frames", [1, 2, 11])
def test_every_frame_arrives(clips: Any, output: Path, num_frames: int) -> None:
    frames = clips.smooth(num_frames)
    assert clips.read(clips.save(output, frames)).shape == tuple(frames.shape)


def test_pixels_are_those_that_went_in(clips: Any, kind: str, output: Path) -> None:
    frames = clips.smooth(9)
    error = np.abs(clips.read(clips.save(output, frames)) - frames.numpy())
    largest_mean = {"mp4": 1.5, "webm": 2.0, "gif": 5.0, "png": 0.0, "safetensors": 0.0}[kind]
    # Neighbouring frames are further apart than this, so a wrong order would show.
    assert error.mean(axis=(1, 2, 3)).max() <= largest_mean


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_saturated_colours_survive(clips: Any, tmp_path: Path, suffix: str) -> None:
    colours = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0]])
    frames = colours.to(torch.uint8)[:, None, None].expand(5, 32, 48, 3)
    path = clips.save(tmp_path / f"colours{suffix}", frames)
    assert np.abs(clips.read(path) - frames.numpy()).max() <= 4
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert (frame.format.name, frame.colorspace, frame.color_range) == ("yuv420p", 6, 1)


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
@pytest.mark.parametrize("fps", [25, 24, 29.97])
def test_videos_have_the_rate_and_the_length(
    clips: Any, tmp_path: Path, suffix: str, fps: float
) -> None:
    path = clips.save(tmp_path / f"clip{suffix}", clips.smooth(12), fps=fps)
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == Fraction(str(fps))
        assert container.duration == pytest.approx(12 / fps * av.time_base, abs=2000)
        times = [frame.time for frame in container.decode(video=0)]
    assert times == pytest.approx([number / fps for number in range(12)], abs=1e-3)


def test_rate_is_the_official_one_by_default(clips: Any, tmp_path: Path) -> None:
    with av.open(str(clips.save(tmp_path / "clip.mp4", clips.smooth(3)))) as container:
        assert container.streams.video[0].average_rate == 25


def test_mp4_has_its_index_in_front(clips: Any, tmp_path: Path) -> None:
    content = clips.save(tmp_path / "clip.mp4", clips.smooth(5)).read_bytes()
    assert 0 < content.index(b"moov") < content.index(b"mdat")


@pytest.mark.parametrize(
    ("fps", "delays"), [(25, [40] * 6), (10, [100] * 6), (30, [30, 40, 30, 30, 40, 30])]
)
def test_gif_loops_with_the_right_delays(
    clips: Any, tmp_path: Path, fps: int, delays: list[int]
) -> None:
    path = clips.save(tmp_path / "clip.gif", clips.smooth(6), fps=fps)
    with Image.open(path) as image:
        assert image.info["loop"] == 0
        assert [frame.info["duration"] for frame in ImageSequence.Iterator(image)] == delays


def test_gif_is_read_by_ffmpeg_too(clips: Any, tmp_path: Path) -> None:
    path = clips.save(tmp_path / "clip.gif", clips.smooth(6))
    with av.open(str(path)) as container:
        frames = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
    np.testing.assert_array_equal(frames, clips.read(path))


def test_png_names_count_from_zero(clips: Any, tmp_path: Path) -> None:
    clips.save(tmp_path / "frames", clips.smooth(3))
    names = sorted(path.name for path in (tmp_path / "frames").iterdir())
    assert names == ["frame_0000.png", "frame_0001.png", "frame_0002.png", "video.json"]


def test_png_frames_go_into_an_empty_folder_of_any_name(clips: Any, tmp_path: Path) -> None:
    folder = tmp_path / "v1.5"
    folder.mkdir()
    frames = clips.noise(2)
    np.testing.assert_array_equal(clips.read(clips.save(folder, frames)), frames.numpy())


def test_safetensors_holds_latents_and_untouched_frames(clips: Any, tmp_path: Path) -> None:
    path = tmp_path / "clip.safetensors"
    frames, latents = clips.noise(2, 544, 992), clips.latents().bfloat16()
    clips.save(path, frames, latents=latents, crop=True, denoise=True)
    tensors = load_file(path)
    assert set(tensors) == {"latents", "frames"}
    assert torch.equal(tensors["frames"], frames)
    assert tensors["latents"].dtype == torch.float32
    assert torch.equal(tensors["latents"], latents.float())
    assert path.stat().st_size % 8 == (latents.numel() * 4 + frames.numel()) % 8


def test_safetensors_takes_latents_of_any_strides(clips: Any, tmp_path: Path) -> None:
    latents = clips.latents().transpose(1, 2)
    path = clips.save(tmp_path / "clip.safetensors", clips.noise(1), latents=latents)
    assert torch.equal(load_file(path)["latents"], latents)


@pytest.mark.parametrize("kind", ["mp4", "webm", "gif", "png"])
def test_crop_applies_to_what_people_look_at(clips: Any, output: Path) -> None:
    frames = clips.smooth(1, 544, 992)
    frames[:, :2] = frames[:, 542:] = frames[:, :, :16] = frames[:, :, 976:] = 0
    read = clips.read(clips.save(output, frames, crop=True))
    assert read.shape == (1, 540, 960, 3)
    # The border was black; a crop that is off by one would show an edge of it.
    assert np.abs(read - frames.numpy()[:, 2:542, 16:976]).max() < 60


@pytest.mark.parametrize("kind", ["mp4", "webm"])
def test_odd_sizes_are_refused_before_anything_is_written(
    clips: Any, output: Path, tmp_path: Path
) -> None:
    with pytest.raises(OutputError, match=r"clip.* 33x64.*even.*\.gif"):
        clips.writer(output, clips.noise(1, 64, 33))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["gif", "png", "safetensors"])
def test_odd_sizes_are_fine_elsewhere(clips: Any, output: Path) -> None:
    assert clips.read(clips.save(output, clips.noise(2, 31, 33))).shape == (2, 31, 33, 3)


@pytest.mark.parametrize(
    ("name", "fps", "words"),
    [("clip.gif", 60, "mp4"), ("clip.mp4", 0, "between"), ("clip.webm", float("nan"), "between")],
)
def test_impossible_rates_are_refused(
    clips: Any, tmp_path: Path, name: str, fps: float, words: str
) -> None:
    with pytest.raises(OutputError, match=words):
        clips.writer(tmp_path / name, clips.noise(1), fps=fps)


def test_names_that_ffmpeg_would_take_for_protocols(
    clips: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("12:30 熊猫.mp4", "pipe:1.webm", "a%03d.gif"):
        assert len(clips.read(clips.save(Path(name), clips.smooth(2)))) == 2
        Path(f"{name}.json").unlink()
        assert read_metadata(Path(name)) == clips.record


@pytest.mark.parametrize("name", ["clip.avi", "clip.MOV", "clip.mp4.part", "v1.5"])
def test_other_extensions_are_refused(clips: Any, tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=r"\.mp4, \.webm, \.gif or \.safetensors, or a folder"):
        clips.writer(tmp_path / name, clips.noise(1))


def test_extensions_may_be_in_capitals(clips: Any, tmp_path: Path) -> None:
    assert len(clips.read(clips.save(tmp_path / "CLIP.MP4", clips.smooth(2)))) == 2
