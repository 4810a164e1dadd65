"""How close a video is to its original: PSNR and SSIM, frame by frame.

Both are of the RGB levels as they would be shown, 0 to 255, and in one definition only, because
figures of different definitions cannot be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_PEAK = 255.0
_RADIUS, _SIGMA = 5, 1.5
_C1, _C2 = (0.01 * _PEAK) ** 2, (0.03 * _PEAK) ** 2

SSIM_MIN_SIDE = 2 * _RADIUS + 1
"""SSIM looks at windows of 11x11 pixels, so a frame must hold one."""


Measure = Callable[[Tensor, Tensor], Tensor]
"""From frames and original frames [T, H, W, 3] to a value for each frame, [T]."""


@dataclass(frozen=True)
class Summary:
    """A measure over a video: its mean and extremes over the frames."""

    mean: float
    lowest: float
    highest: float


class QualityMeter:
    """Compares a video with its original chunk by chunk.

    measures: by name; PSNR and SSIM if none are given. values: what each found, frame by frame.
    """

    def __init__(self, measures: dict[str, Measure] | None = None) -> None:
        self._measures = measures or {"psnr": psnr, "ssim": ssim}
        self.values: dict[str, list[float]] = {name: [] for name in self._measures}

    def add(self, frames_THWC: Tensor, original_THWC: Tensor) -> None:
        """Measure some frames [T, H, W, 3] with levels 0 to 255."""
        for name, measure in self._measures.items():
            self.values[name] += measure(frames_THWC, original_THWC).tolist()

    def summaries(self) -> dict[str, Summary]:
        """Each measure over all frames; there must be one."""
        return {
            name: Summary(sum(found) / len(found), min(found), max(found))
            for name, found in self.values.items()
        }


def psnr(frames_THWC: Tensor, original_THWC: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each frame in dB: float64 [T]; infinite for equal frames.

    10 log10(255^2 / MSE), the error taken over all pixels and channels of a frame.
    frames_THWC, original_THWC: levels 0 to 255, any dtype, on one device. Raises ValueError for
    different shapes.
    """
    _check(frames_THWC, original_THWC)
    difference_THWC = frames_THWC.float() - original_THWC.float()
    mse_T = difference_THWC.square_().mean(dim=(1, 2, 3), dtype=torch.float64)
    return 10 * torch.log10(_PEAK**2 / mse_T)


def ssim(frames_THWC: Tensor, original_THWC: Tensor) -> Tensor:
    """Structural similarity of each frame: float64 [T], 1 for equal frames.

    As in Wang et al., "Image quality assessment: from error visibility to structural similarity"
    (2004): Gaussian window of 11x11 with sigma 1.5, K1 = 0.01, K2 = 0.03; the mean over the
    positions where the window lies wholly inside the frame, and over the channels.
    frames_THWC, original_THWC: levels 0 to 255, any dtype, on one device. Raises ValueError for
    different shapes and for frames smaller than the window.
    """
    _check(frames_THWC, original_THWC)
    if min(frames_THWC.shape[1:3]) < SSIM_MIN_SIDE:
        raise ValueError(
            f"frames of {frames_THWC.shape[2]}x{frames_THWC.shape[1]} are smaller than the "
            f"{SSIM_MIN_SIDE}x{SSIM_MIN_SIDE} window of SSIM"
        )
    # One frame at a time: the maps of a whole 540p chunk would take gigabytes.
    pairs = zip(frames_THWC, original_THWC, strict=True)
    return torch.stack([_frame_ssim(frame_HWC, other_HWC) for frame_HWC, other_HWC in pairs])


def _frame_ssim(frame_HWC: Tensor, other_HWC: Tensor) -> Tensor:
    # About the middle level: in float32 the variances would lose digits to large means.
    middle = _PEAK / 2
    x_CHW, y_CHW = ((pixels.float() - middle).movedim(-1, 0) for pixels in (frame_HWC, other_HWC))
    maps = torch.stack([x_CHW, y_CHW, x_CHW * x_CHW, y_CHW * y_CHW, x_CHW * y_CHW])
    x_mean, y_mean, xx, yy, xy = _blur(maps)
    x_variance, y_variance = xx - x_mean * x_mean, yy - y_mean * y_mean
    covariance = xy - x_mean * y_mean
    x_mean, y_mean = x_mean + middle, y_mean + middle
    luminance = (2 * x_mean * y_mean + _C1) / (x_mean * x_mean + y_mean * y_mean + _C1)
    structure = (2 * covariance + _C2) / (x_variance + y_variance + _C2)
    return (luminance * structure).mean(dtype=torch.float64)


def _blur(maps_NCHW: Tensor) -> Tensor:
    """Gaussian means over the windows that fit."""
    offsets = torch.arange(-_RADIUS, _RADIUS + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (offsets / _SIGMA) ** 2)
    kernel = (weights / weights.sum()).to(maps_NCHW)
    planes = maps_NCHW.flatten(0, 1).unsqueeze(1)
    planes = F.conv2d(planes, kernel.view(1, 1, -1, 1))
    planes = F.conv2d(planes, kernel.view(1, 1, 1, -1))
    return planes.squeeze(1).unflatten(0, maps_NCHW.shape[:2])


def _check(frames_THWC: Tensor, original_THWC: Tensor) -> None:
    if frames_THWC.ndim != 4 or frames_THWC.shape != original_THWC.shape:
        raise ValueError(
            f"frames must be [T, H, W, C] and of one shape, not {list(frames_THWC.shape)} and "
            f"{list(original_THWC.shape)}"
        )
