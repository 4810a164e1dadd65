"""How close one video is to another: PSNR and SSIM, frame by frame."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_PSNR = 100.0
"""Upper bound in dB, so that equal frames, whose PSNR is infinite, can be averaged and written."""

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2


def psnr(video_THWC: Tensor, reference_THWC: Tensor) -> float:
    """Peak signal-to-noise ratio in dB over all frames at once; MAX_PSNR for equal videos.

    video_THWC, reference_THWC: uint8 [T, H, W, 3]. Raises ValueError if the shapes differ.
    """
    _check(video_THWC, reference_THWC)
    errors = [_squared_error(*pair) for pair in zip(video_THWC, reference_THWC, strict=True)]
    return _decibel(torch.stack(errors).mean())


def psnr_by_frame(video_THWC: Tensor, reference_THWC: Tensor) -> list[float]:
    """The PSNR of each frame in dB; arguments and errors as for `psnr`."""
    _check(video_THWC, reference_THWC)
    return [
        _decibel(_squared_error(*pair)) for pair in zip(video_THWC, reference_THWC, strict=True)
    ]


def ssim(video_THWC: Tensor, reference_THWC: Tensor) -> float:
    """Structural similarity, mean over windows, channels and frames; 1 for equal videos.

    The original form: Gaussian window of 11x11 with sigma 1.5, K1 = 0.01, K2 = 0.03, population
    variances, only windows that lie inside of the frame. Wang, Bovik, Sheikh, Simoncelli, IEEE
    Transactions on Image Processing 13 (2004).

    video_THWC, reference_THWC: uint8 [T, H, W, 3] with sides of at least 11. Raises ValueError.
    """
    _check(video_THWC, reference_THWC)
    if min(video_THWC.shape[1:3]) < _WINDOW:
        height, width = video_THWC.shape[1:3]
        raise ValueError(
            f"frames of {width}x{height} are smaller than the {_WINDOW}x{_WINDOW} window"
        )
    # One frame at a time: a 540p video would need gigabytes otherwise.
    values = [_ssim_of_frame(*pair) for pair in zip(video_THWC, reference_THWC, strict=True)]
    return float(torch.stack(values).mean())


def _check(video: Tensor, reference: Tensor) -> None:
    for tensor in (video, reference):
        if tensor.dtype != torch.uint8 or tensor.ndim != 4 or tensor.shape[-1] != 3:
            raise ValueError(
                f"videos must be uint8 [T, H, W, 3], not {tensor.dtype} {list(tensor.shape)}"
            )
    if video.shape != reference.shape or not video.numel():
        raise ValueError(
            f"videos of {list(video.shape)} and {list(reference.shape)} cannot be compared"
        )


def _squared_error(frame: Tensor, reference: Tensor) -> Tensor:
    difference = frame.to(torch.float64) - reference.to(torch.float64)
    return (difference / 255).square().mean()


def _decibel(mean_squared_error: Tensor) -> float:
    return min(MAX_PSNR, float(-10 * mean_squared_error.log10()))


@lru_cache(maxsize=1)
def _gaussian() -> Tensor:
    offsets = torch.arange(_WINDOW, dtype=torch.float32) - _WINDOW // 2
    weights = (-0.5 * (offsets / _SIGMA).square()).exp()
    return weights / weights.sum()


def _blurred(images_NHW: Tensor) -> Tensor:
    """The windows' weighted means, one per place where the window fits."""
    kernel, images = _gaussian(), images_NHW[:, None]
    rows = F.conv2d(images, kernel.view(1, 1, -1, 1))
    return F.conv2d(rows, kernel.view(1, 1, 1, -1))[:, 0]


def _ssim_of_frame(frame_HWC: Tensor, reference_HWC: Tensor) -> Tensor:
    x, y = (tensor.movedim(-1, 0).float() / 255 for tensor in (frame_HWC, reference_HWC))
    mean_x, mean_y = _blurred(x), _blurred(y)
    variance_x = _blurred(x * x) - mean_x.square()
    variance_y = _blurred(y * y) - mean_y.square()
    covariance = _blurred(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x.square() + mean_y.square() + _C1)
    structure = (2 * covariance + _C2) / (variance_x + variance_y + _C2)
    return (luminance * structure).mean()
