"""Pictures: from any file that Pillow reads to the pixels that the VAE encodes.

Reading keeps the picture's own size; `fit` then scales and crops it to a video's, exactly as the
official image-to-video pipeline does.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from stepvideo_core.errors import InvalidRequest

ImageSource = str | Path | Image.Image | Tensor
"""A file, an open Pillow image, or pixels [3, H, W] in [-1, 1]."""

_MIN_SIDE = 16
_MIN_VISIBLE = 1 / 16
"""The share of the scaled picture that the crop must keep."""
_SAID_BELOW = 3 / 4
"""A crop that keeps less than this is told to the user."""


@dataclass(frozen=True)
class Picture:
    """A picture in memory.

    pixels_CHW: float32 [3, H, W] in [-1, 1]. source: where it came from, for messages and records.
    sha256: of the pixels, so that the same picture in another file counts as the same.
    notes: what was decided while reading it, as sentences.
    """

    pixels_CHW: Tensor = field(repr=False, compare=False)
    source: str = field(compare=False)
    sha256: str
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def height(self) -> int:
        return self.pixels_CHW.shape[1]

    @property
    def width(self) -> int:
        return self.pixels_CHW.shape[2]

    def as_json(self) -> dict[str, Any]:
        """What a record keeps of it."""
        return {
            "source": self.source,
            "width": self.width,
            "height": self.height,
            "sha256": self.sha256,
        }


def read_image(source: ImageSource) -> Picture:
    """A picture from a file, a Pillow image or a tensor.

    Turns it upright as its EXIF data says, lays transparent parts over white, takes the first
    frame of an animation, and keeps all 16 bits of a deep greyscale picture. Raises InvalidRequest
    for what is missing, damaged, no picture, smaller than 16 pixels a side, or larger than
    Pillow's limit against decompression bombs.
    """
    if isinstance(source, Tensor):
        return _picture(_checked_tensor(source), "tensor", [])
    if isinstance(source, Image.Image):
        notes: list[str] = []
        return _picture(_decoded(source, "the given image", notes), "Pillow image", notes)
    path = Path(source).expanduser()
    notes = []
    try:
        with warnings.catch_warnings():
            # Pillow only warns up to twice its limit; a bomb should not depend on a filter.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                pixels_CHW = _decoded(image, f"image {path}", notes)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InvalidRequest(
            f"image {path} has more than {Image.MAX_IMAGE_PIXELS:,} pixels, which is refused "
            "because such files can fill the memory: scale it down first"
        ) from None
    except FileNotFoundError:
        raise InvalidRequest(f"image {path} is missing") from None
    except UnidentifiedImageError:
        raise InvalidRequest(
            f"image {path} is no picture that can be read: give a PNG, JPEG, WebP, TIFF, GIF or BMP"
        ) from None
    except InvalidRequest:
        raise
    except (IsADirectoryError, PermissionError) as error:
        raise InvalidRequest(f"image {path} cannot be read: {error.strerror}") from None
    # A damaged file makes Pillow's decoders fail in many ways, SyntaxError and struct.error among
    # them; whatever it is, the picture cannot be read.
    except Exception as error:
        raise InvalidRequest(
            f"image {path} is damaged or of an unsupported kind ({error}): save it anew, for "
            "instance as PNG"
        ) from error
    return _picture(pixels_CHW, str(path), notes)


def fit(picture: Picture, height: int, width: int) -> Tensor:
    """Pixels [3, height, width] in [-1, 1]: scaled to cover the size, then cropped at the centre.

    Bilinear with antialiasing, in float32, as the official pipeline scales tensors. Raises
    InvalidRequest if almost nothing of the picture would be left.
    """
    rows, columns = _covering_size(picture, height, width)
    top, left = (rows - height) // 2, (columns - width) // 2
    pixels_BCHW = F.interpolate(
        picture.pixels_CHW[None], (rows, columns), mode="bilinear", antialias=True
    )
    return pixels_BCHW[0, :, top : top + height, left : left + width]


def fit_notes(picture: Picture, height: int, width: int) -> list[str]:
    """What scaling and cropping to this size do to the picture, as sentences, where it matters."""
    rows, columns = _covering_size(picture, height, width)
    visible = height * width / (rows * columns)
    notes = []
    if visible < _SAID_BELOW:
        side = "left and right" if columns > width else "top and bottom"
        turned = (width > height) != (picture.width > picture.height)
        better = f"; --height {width} --width {height} fits it better" if turned else ""
        notes.append(
            f"the image of {picture.width}x{picture.height} is cropped at {side}: "
            f"{visible:.0%} of it is seen{better}"
        )
    if picture.height < height and picture.width < width:
        notes.append(
            f"the image of {picture.width}x{picture.height} is smaller than the video of "
            f"{width}x{height} and is enlarged"
        )
    return notes


def _covering_size(picture: Picture, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the scaled picture: one side fits, the other is at least as long."""
    if picture.width / picture.height < width / height:
        scale = width / picture.width
    else:
        scale = height / picture.height
    # Rounding may fall one short of the target, where the official code stops with an assertion.
    rows = max(round(picture.height * scale), height)
    columns = max(round(picture.width * scale), width)
    if height * width < _MIN_VISIBLE * rows * columns:
        raise InvalidRequest(
            f"image {picture.source} of {picture.width}x{picture.height} is too long and narrow: "
            f"a video of {width}x{height} would show less than a sixteenth of it"
        )
    return rows, columns


def _picture(pixels_CHW: Tensor, source: str, notes: list[str]) -> Picture:
    height, width = pixels_CHW.shape[1:]
    if min(height, width) < _MIN_SIDE:
        raise InvalidRequest(
            f"image {source} of {width}x{height} is too small: give one of at least {_MIN_SIDE} "
            "pixels a side"
        )
    digest = hashlib.sha256(f"{height}x{width}".encode())
    digest.update(pixels_CHW.numpy().data)
    return Picture(pixels_CHW, source, digest.hexdigest(), tuple(notes))


def _checked_tensor(pixels_CHW: Tensor) -> Tensor:
    if pixels_CHW.dim() != 3 or pixels_CHW.shape[0] != 3 or not pixels_CHW.is_floating_point():
        raise InvalidRequest(
            f"an image tensor must be floating point [3, H, W], not {pixels_CHW.dtype} "
            f"{list(pixels_CHW.shape)}"
        )
    pixels_CHW = pixels_CHW.detach().to("cpu", torch.float32).contiguous()
    # NaN fails this comparison as well.
    if not bool((pixels_CHW.abs() <= 1).all()):
        raise InvalidRequest("an image tensor must lie in [-1, 1], with black at -1")
    return pixels_CHW


def _decoded(image: Image.Image, name: str, notes: list[str]) -> Tensor:
    num_frames = getattr(image, "n_frames", 1)
    if num_frames > 1:
        notes.append(f"{name} has {num_frames} frames; the first is used")
    image = ImageOps.exif_transpose(image)
    if image.mode == "F" or image.mode.startswith("I"):
        values_HW = _deep_grey(np.asarray(image), name, floating=image.mode == "F")
        return torch.from_numpy(values_HW)[None].expand(3, -1, -1).contiguous()
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        if layers.getchannel("A").getextrema()[0] != 255:
            notes.append(f"{name} has transparent parts; they are shown over white")
        image = Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers)
    # A copy, because torch warns of arrays that may not be written.
    values_HWC = np.array(image.convert("RGB"), dtype=np.float32)
    return torch.from_numpy(values_HWC).permute(2, 0, 1).contiguous() / 255 * 2 - 1


def _deep_grey(values_HW: Any, name: str, *, floating: bool) -> Any:
    """float32 [H, W] in [-1, 1] from 16-bit integers, or from floating point in [0, 1]."""
    white = 1 if floating else 65535
    values_HW = values_HW.astype(np.float32)
    if not bool(((values_HW >= 0) & (values_HW <= white)).all()):
        raise InvalidRequest(
            f"{name} has grey values outside 0 to {white}, so its white is unknown: save it as an "
            "8-bit or 16-bit picture"
        )
    return values_HW / white * 2 - 1
