"""Pixels as the official code makes them: truncated to uint8, cropped to 540p."""

from __future__ import annotations

import torch
from torch import Tensor

from stepvideo_core.config import Numerics

Crop = tuple[slice, slice]
"""Rows and columns that stay."""

_SHORT, _LONG = 540, 960
_MAX_EXTRA = 32
"""Of 992 over 960, the official width; 544 over 540 is less."""


def to_uint8(pixels_CHW: Tensor, numerics: Numerics = "accurate") -> Tensor:
    """Pixels about [-1, 1], any float dtype and device, to bytes: truncated, as officially.

    pixels_CHW: [..., 3, H, W]. numerics: "accurate" computes in float32; "official" in the
    tensor's own dtype, which in bfloat16 leaves the bright half with whole-number steps already
    rounded.

    Returns uint8 [..., H, W, 3] on the CPU, contiguous. Raises ValueError for another shape.
    """
    if pixels_CHW.ndim < 3 or pixels_CHW.shape[-3] != 3:
        raise ValueError(f"pixels must be [..., 3, H, W], not {list(pixels_CHW.shape)}")
    if numerics == "accurate":
        pixels_CHW = pixels_CHW.float()
    levels = pixels_CHW.clamp(-1, 1).add_(1).mul_(127.5).to(torch.uint8)
    return levels.movedim(-3, -1).contiguous().cpu()


def crop_540p(height: int, width: int) -> Crop | None:
    """The centre that the official code keeps of a 540p frame: 540x960, or 960x540 in portrait.

    It takes off what the grid of the model adds to that size, as in 544x992. None for every other
    size: the official code cuts those too, but then throws away what was asked for (720x1280 would
    lose half its picture, and a smaller frame is spoilt).
    """
    if height // 2 == width // 2:
        return None
    crop_height, crop_width = (_SHORT, _LONG) if width // 2 > height // 2 else (_LONG, _SHORT)
    extra = (height - crop_height, width - crop_width)
    if min(extra) < 0 or max(extra) > _MAX_EXTRA or not any(extra):
        return None
    top, left = height // 2 - crop_height // 2, width // 2 - crop_width // 2
    return slice(top, top + crop_height), slice(left, left + crop_width)
