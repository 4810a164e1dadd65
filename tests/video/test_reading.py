"""Reading videos and pictures: what is shown is what comes out, and damage is named."""

from __future__ import annotations

import struct
import wave
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from PIL import Image
from torch import Tensor

from stepvideo_core.errors import InvalidRequest
from stepvideo_core.video.reading import FrameReader

Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Write frames [T, H, W, C] with any codec, without loss by default."""

    def write(
        name: str,
        frames: Tensor,
        *,
        codec: str = "png",
        pixel_format: str = "rgb24",
        times: Sequence[int] | None = None,
        rate: int = 25,
        container_options: dict[str, str] | None = None,
        **codec_options: str,
    ) -> Path:
        path = tmp_path / name
        with av.open(str(path.absolute()), "w", options=container_options or {}) as container:
            stream: Any = container.add_stream(codec, rate=rate, options=codec_options)
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = pixel_format
            source = "rgba" if frames.shape[-1] == 4 else "rgb24"
            for number, pixels in enumerate(frames.numpy()):
                frame = av.VideoFrame.from_ndarray(pixels, format=source)
                frame.pts = number if times is None else times[number]
                frame.time_base = Fraction(1, rate)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    return write


def read(path: Path, limit: int | None = None) -> tuple[Tensor, FrameReader]:
    with FrameReader(path) as reader:
        return torch.stack(list(reader.frames(limit))), reader


def test_every_frame_in_order(save: Save, clips: Any) -> None:
    frames = clips.noise(5, 35, 51)
    found, reader = read(save("a.mov", frames, rate=30))
    assert torch.equal(found, frames)
    assert (reader.height, reader.width, reader.fps, reader.notes) == (35, 51, 30.0, [])


def test_only_the_first_frames(save: Save, clips: Any) -> None:
    frames = clips.noise(5)
    assert torch.equal(read(save("a.mov", frames), 3)[0], frames[:3])


def test_a_name_with_a_colon(save: Save, clips: Any) -> None:
    assert len(read(save("http:clip.mov", clips.noise(2)))[0]) == 2


@pytest.mark.parametrize(
    ("matrix", "turns"),
    [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)],
    ids=["clockwise", "upside-down", "counterclockwise"],
)
def test_rotation(save: Save, clips: Any, matrix: tuple[int, ...], turns: int) -> None:
    """Phones store how to turn a video in the track's matrix: x' = a x + c y, y' = b x + d y."""
    frames = clips.noise(2, 32, 48)
    path = save("phone.mov", frames)
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 44
    a, b, c, d = (value << 16 for value in matrix)
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    found, reader = read(path)
    assert torch.equal(found, torch.rot90(frames, turns, (1, 2)))
    assert (reader.height, reader.width) == tuple(found.shape[1:3])


def test_transparency_is_shown_over_white(save: Save) -> None:
    frames = torch.zeros(1, 16, 16, 4, dtype=torch.uint8)
    frames[:, :8] = torch.tensor([255, 0, 0, 255], dtype=torch.uint8)
    frames[:, 8:, :8] = torch.tensor([0, 0, 200, 51], dtype=torch.uint8)
    found, reader = read(save("glass.mov", frames, pixel_format="rgba"))
    assert found[0, 0, 0].tolist() == [255, 0, 0]
    assert found[0, 15, 0].tolist() == [204, 204, 244]
    assert found[0, 15, 15].tolist() == [255, 255, 255]
    assert reader.notes == [f"{reader.path} has transparent parts; they are shown over white"]


def test_a_variable_rate_is_told(save: Save, clips: Any) -> None:
    frames = clips.noise(4)
    found, reader = read(save("phone.mov", frames, times=[0, 1, 5, 6]))
    assert torch.equal(found, frames)
    (told,) = reader.notes
    assert "has a variable frame rate: every frame is taken as it comes" in told


def test_colours_are_read_as_the_file_says(save: Save, clips: Any, tmp_path: Path) -> None:
    """Our own mp4 is BT.601 and says so; read as BT.709 red would be 30 levels off."""
    frames = torch.zeros(3, 64, 64, 3, dtype=torch.uint8)
    frames[...] = torch.tensor([220, 30, 40], dtype=torch.uint8)
    found, _ = read(clips.save(tmp_path / "red.mp4", frames))
    assert int((found.int() - frames.int()).abs().max()) <= 3


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.bmp"])
def test_a_picture_is_one_frame(tmp_path: Path, clips: Any, name: str) -> None:
    frame = clips.noise(1, 33, 47)[0]
    options = {"lossless": True} if name == "a.webp" else {}
    Image.fromarray(frame.numpy()).save(tmp_path / name, **options)
    found, reader = read(tmp_path / name)
    assert torch.equal(found, frame[None])
    assert reader.fps is None


def test_an_animated_gif_is_a_video(clips: Any, tmp_path: Path) -> None:
    path = clips.save(tmp_path / "a.gif", clips.smooth(4), fps=10)
    found, reader = read(path)
    assert len(found) == 4
    assert reader.fps == 10


class TestDamage:
    @pytest.fixture
    def long(self, save: Save, clips: Any) -> Path:
        """50 frames behind their index, so that what is cut off is frames."""
        options = {"movflags": "+faststart"}
        return save(
            "long.mp4",
            clips.noise(50),
            codec="libx264",
            pixel_format="yuv420p",
            container_options=options,
            bf="0",
        )

    def test_cut_within_a_frame(self, long: Path) -> None:
        data = long.read_bytes()
        long.write_bytes(data[: len(data) // 2])
        # Depending on where the cut is, FFmpeg fails there or ends as if the file were whole.
        message = r"after \d+ frames it cannot be decoded|announces 50 frames, but only \d+"
        with pytest.raises(InvalidRequest, match=message) as caught:
            read(long)
        count = int(str(caught.value).split("--frames ")[1].split(",")[0])
        assert 10 < count < 40
        assert len(read(long, count)[0]) == count

    def test_cut_between_frames(self, long: Path) -> None:
        """FFmpeg ends without an error there."""
        with av.open(str(long)) as container:
            packets = [p for p in container.demux(video=0) if p.size]
        position = packets[20].pos
        assert position is not None
        long.write_bytes(long.read_bytes()[:position])
        message = "it announces 50 frames, but only 20 are there|after 20 frames it cannot"
        with pytest.raises(InvalidRequest, match=message):
            read(long)

    def test_without_its_index(self, save: Save, clips: Any) -> None:
        path = save("a.mp4", clips.noise(5), codec="libx264", pixel_format="yuv420p")
        path.write_bytes(path.read_bytes()[:-2000])
        with pytest.raises(InvalidRequest, match="cannot be read as a video or a picture"):
            FrameReader(path)

    @pytest.mark.parametrize("content", [b"", b"not a video at all" * 100])
    def test_no_video(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "a.mp4"
        path.write_bytes(content)
        with pytest.raises(InvalidRequest, match=r"a\.mp4 cannot be read as a video or a picture"):
            FrameReader(path)

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidRequest, match=r"none\.mp4 is missing, or no file"):
            FrameReader(tmp_path / "none.mp4")
        with pytest.raises(InvalidRequest, match="is missing, or no file"):
            FrameReader(tmp_path)
        with pytest.raises(InvalidRequest, match=r"none\.png is missing"):
            FrameReader(tmp_path / "none.png")

    def test_sound_alone(self, tmp_path: Path) -> None:
        with wave.open(str(tmp_path / "a.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(bytes(8000))
        with pytest.raises(InvalidRequest, match="has no pictures in it"):
            FrameReader(tmp_path / "a.wav")

    def test_a_size_that_changes(self, save: Save, clips: Any) -> None:
        options = {"codec": "mpeg2video", "pixel_format": "yuv420p"}
        one = save("one.ts", clips.noise(3, 48, 64), **options)
        other = save("other.ts", clips.noise(3, 64, 64), **options)
        one.write_bytes(one.read_bytes() + other.read_bytes())
        message = r"changes its size: frame (\d) is 64x64, the first is 64x48; take the frames bef"
        with pytest.raises(InvalidRequest, match=message) as caught:
            read(one)
        count = int(str(caught.value).rsplit(" ", 1)[1])
        assert read(one, count)[0].shape == (count, 48, 64, 3)
