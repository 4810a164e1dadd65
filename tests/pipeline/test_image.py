"""Pictures of every kind become the same pixels; what is no picture is one sentence."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from stepvideo_core.errors import InvalidRequest
from stepvideo_core.image import Picture, fit, fit_notes, read_image


def corners(pixels_CHW: Tensor) -> list[list[int]]:
    """Top left, top right and bottom left as 8-bit RGB."""
    levels = ((pixels_CHW + 1) * 127.5).round().int()
    return [levels[:, 0, 0].tolist(), levels[:, 0, -1].tolist(), levels[:, -1, 0].tolist()]


RED, GREEN, BLUE, WHITE = [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]


@pytest.fixture
def flag() -> Image.Image:
    """32x24: red, with a green top right and a blue bottom left quarter."""
    image = Image.new("RGB", (32, 24), "red")
    image.paste((0, 255, 0), (16, 0, 32, 12))
    image.paste((0, 0, 255), (0, 12, 16, 24))
    return image


def test_the_official_preprocessing(golden: Callable[[str], Path]) -> None:
    folder = golden("pipeline_ti2v")
    data = load_file(folder / "golden.safetensors")
    picture = read_image(folder / "first_image.png")
    truth_u8 = data["first_image_u8"].permute(2, 0, 1)
    assert torch.equal(picture.pixels_CHW, truth_u8.float() / 255 * 2 - 1)
    assert picture.notes == ()
    fitted = fit(picture, 48, 32)
    assert (fitted - data["image_tensor"][0, 0]).abs().max() < 2e-6


@pytest.mark.parametrize("name", ["x.png", "x.webp", "x.tiff", "x.bmp", "x.gif", "x.ppm", "x.jp2"])
def test_lossless_formats_give_the_same_pixels(
    flag: Image.Image, tmp_path: Path, name: str
) -> None:
    options = {"lossless": True} if name == "x.webp" else {}
    flag.save(tmp_path / name, **options)
    picture = read_image(tmp_path / name)
    assert torch.equal(picture.pixels_CHW, read_image(flag).pixels_CHW)
    assert picture.sha256 == read_image(flag).sha256
    assert picture == read_image(flag)


@pytest.mark.parametrize("mode", ["P", "CMYK", "YCbCr", "RGBA", "RGBX", "HSV"])
def test_colour_modes(flag: Image.Image, tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("x.jpg" if mode == "YCbCr" else "x.tiff")
    source = flag.convert(mode)
    if mode == "HSV":
        assert corners(read_image(source).pixels_CHW) == [RED, GREEN, BLUE]
        return
    source.save(path, **({"quality": 100} if mode == "YCbCr" else {}))
    found = torch.tensor(corners(read_image(path).pixels_CHW))
    assert (found - torch.tensor([RED, GREEN, BLUE])).abs().max() <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(flag: Image.Image, tmp_path: Path, orientation: int) -> None:
    """A viewer that honours the tag shows the flag upright, and so do we."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = flag.transpose(undo[orientation]) if orientation > 1 else flag
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "x.png", exif=exif)
    picture = read_image(tmp_path / "x.png")
    assert (picture.width, picture.height) == (32, 24)
    assert corners(picture.pixels_CHW) == [RED, GREEN, BLUE]


def test_transparency_is_laid_over_white(flag: Image.Image, tmp_path: Path) -> None:
    alpha = Image.new("L", flag.size, 255)
    alpha.paste(0, (16, 0, 32, 12))
    flag.putalpha(alpha)
    flag.save(tmp_path / "x.png")
    picture = read_image(tmp_path / "x.png")
    assert corners(picture.pixels_CHW) == [RED, WHITE, BLUE]
    assert "shown over white" in picture.notes[0]
    flag.convert("P").save(tmp_path / "x.gif", transparency=0)
    assert "shown over white" in read_image(tmp_path / "x.gif").notes[0]
    flag.putalpha(255)
    assert read_image(flag).notes == ()


def test_sixteen_bits_are_kept(tmp_path: Path) -> None:
    levels = np.linspace(0, 65535, 32 * 24, dtype=np.uint16).reshape(24, 32)
    Image.fromarray(levels).save(tmp_path / "x.png")
    pixels = read_image(tmp_path / "x.png").pixels_CHW
    assert pixels.shape == (3, 24, 32)
    truth = torch.from_numpy(levels.astype(np.float64)) / 65535 * 2 - 1
    assert (pixels[1].double() - truth).abs().max() < 1e-6
    assert len(pixels.unique()) == 32 * 24
    Image.fromarray((levels / 65535).astype(np.float32)).save(tmp_path / "x.tiff")
    assert (read_image(tmp_path / "x.tiff").pixels_CHW[0].double() - truth).abs().max() < 1e-6


def test_grey_and_bilevel(flag: Image.Image, tmp_path: Path) -> None:
    for mode in ("L", "LA", "1"):
        flag.convert(mode).save(tmp_path / "x.png")
        pixels = read_image(tmp_path / "x.png").pixels_CHW
        assert pixels.shape == (3, 24, 32)
        assert torch.equal(pixels[0], pixels[2])


def test_an_animation_gives_its_first_frame(flag: Image.Image, tmp_path: Path) -> None:
    flag.save(tmp_path / "x.gif", save_all=True, append_images=[flag.rotate(180)])
    picture = read_image(tmp_path / "x.gif")
    assert corners(picture.pixels_CHW) == [RED, GREEN, BLUE]
    assert "has 2 frames; the first is used" in picture.notes[0]


def test_tensors(flag: Image.Image) -> None:
    pixels = read_image(flag).pixels_CHW
    assert read_image(pixels.double()) == read_image(flag)
    for wrong, message in (
        (pixels[0], r"floating point \[3, H, W\]"),
        (pixels.int(), r"not torch.int32"),
        (pixels * 2, r"must lie in \[-1, 1\]"),
        (pixels / 0, r"must lie in \[-1, 1\]"),
        (pixels[:, :3], "is too small"),
    ):
        with pytest.raises(InvalidRequest, match=message):
            read_image(wrong)


def _bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to have width x height pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "x.png is missing"),
        (b"", "is no picture that can be read"),
        (b"hello, I am a text", "is no picture that can be read"),
        (_bomb(10_000, 10_000), "has more than 89,478,485 pixels"),
        (_bomb(60_000, 60_000), "has more than 89,478,485 pixels"),
        (_bomb(64, 64)[:60], "is damaged or of an unsupported kind"),
        (_bomb(64, 64), "is damaged or of an unsupported kind"),
        ("tiny", "of 3x40 is too small: give one of at least 16 pixels a side"),
        ("deep", "grey values outside 0 to 65535"),
        ("folder", "cannot be read: Is a directory"),
    ],
)
def test_what_is_no_picture(tmp_path: Path, content: bytes | str | None, message: str) -> None:
    path = tmp_path / "x.png"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "tiny":
        Image.new("RGB", (3, 40)).save(path)
    elif content == "deep":
        path = tmp_path / "x.tiff"
        Image.fromarray(np.full((32, 32), 70_000, dtype=np.int32)).save(path)
    elif content == "folder":
        path.mkdir()
    with pytest.raises(InvalidRequest) as caught:
        read_image(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_truncated_photograph(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    noise = Image.fromarray(generator.integers(0, 255, (64, 64, 3), dtype=np.uint8))
    noise.save(tmp_path / "x.jpg")
    whole = (tmp_path / "x.jpg").read_bytes()
    (tmp_path / "x.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidRequest, match="is damaged or of an unsupported kind"):
        read_image(tmp_path / "x.jpg")


side = st.integers(16, 90)


@settings(deadline=None, max_examples=60)
@given(side, side, st.integers(1, 4), st.integers(1, 4))
def test_fitting_covers_the_frame_and_keeps_the_middle(
    height: int, width: int, rows: int, columns: int
) -> None:
    """A ramp along each axis stays a ramp around 0, whatever the two shapes are."""
    ramp = torch.linspace(-1, 1, height)[:, None] + torch.linspace(-1, 1, width)[None]
    picture = Picture((ramp / 2).expand(3, -1, -1).contiguous(), "ramp", "")
    fitted = fit(picture, 16 * rows, 16 * columns)
    assert fitted.shape == (3, 16 * rows, 16 * columns)
    assert fitted.isfinite().all()
    assert fitted.abs().max() <= 1 + 1e-6
    # An odd surplus moves the centre by half a pixel of the scaled picture.
    scaled = max(16 * rows / height, 16 * columns / width) * min(height, width)
    assert abs(float(fitted.mean())) < 1 / scaled


def test_a_ribbon_is_refused_and_crops_are_said() -> None:
    ribbon = Picture(torch.zeros(3, 16, 4000), "ribbon.png", "")
    with pytest.raises(InvalidRequest, match=r"ribbon\.png of 4000x16 is too long and narrow"):
        fit(ribbon, 544, 992)
    portrait = Picture(torch.zeros(3, 992, 544), "p.png", "")
    (text,) = fit_notes(portrait, 544, 992)
    assert "cropped at top and bottom: 30% of it is seen; --height 992 --width 544" in text
    assert fit_notes(portrait, 992, 544) == []
    assert "is enlarged" in fit_notes(Picture(torch.zeros(3, 32, 64), "s.png", ""), 64, 128)[0]
