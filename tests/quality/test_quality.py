"""PSNR and SSIM against their definitions, window by window in float64."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stepvideo_core.quality import SSIM_MIN_SIDE, psnr, ssim

Pixels = npt.NDArray[np.float64]


def _pair(seed: int, shape: tuple[int, ...], spread: int) -> tuple[Tensor, Tensor]:
    """uint8 frames, and the same ones off by up to `spread` levels."""
    generator = torch.Generator().manual_seed(seed)
    original = torch.randint(0, 256, shape, generator=generator)
    noise = torch.randint(-spread, spread + 1, shape, generator=generator)
    return (original + noise).clamp(0, 255).to(torch.uint8), original.to(torch.uint8)


def _oracle_ssim(x: Pixels, y: Pixels) -> float:
    """The definition for one frame [H, W, C], one window after another."""
    offsets = np.arange(-5, 6)
    squared = offsets[:, None] ** 2 + offsets[None, :] ** 2
    window = np.exp(-squared / (2 * 1.5**2))[:, :, None]
    window /= window.sum()
    values = []
    for top in range(x.shape[0] - 10):
        for left in range(x.shape[1] - 10):
            a, b = (p[top : top + 11, left : left + 11] for p in (x, y))
            mean_a, mean_b = ((window * p).sum(axis=(0, 1)) for p in (a, b))
            variance_a = (window * (a - mean_a) ** 2).sum(axis=(0, 1))
            variance_b = (window * (b - mean_b) ** 2).sum(axis=(0, 1))
            covariance = (window * (a - mean_a) * (b - mean_b)).sum(axis=(0, 1))
            c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
            values.append(
                (2 * mean_a * mean_b + c1)
                * (2 * covariance + c2)
                / ((mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2))
            )
    return float(np.mean(values))


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    height=st.integers(11, 19),
    width=st.integers(11, 19),
    channels=st.sampled_from([1, 3]),
    spread=st.sampled_from([1, 20, 255]),
)
def test_both_equal_their_definitions(
    seed: int, height: int, width: int, channels: int, spread: int
) -> None:
    frames, original = _pair(seed, (2, height, width, channels), spread)
    x, y = frames.double().numpy(), original.double().numpy()
    for index in range(2):
        mse = float(np.mean((x[index] - y[index]) ** 2))
        wanted = 10 * math.log10(255**2 / mse) if mse else math.inf
        assert psnr(frames, original)[index].item() == pytest.approx(wanted, rel=1e-6)
        assert ssim(frames, original)[index].item() == pytest.approx(
            _oracle_ssim(x[index], y[index]), abs=2e-6
        )


def test_flat_bright_frames_keep_their_digits() -> None:
    """Where the mean is large and the variance small, float32 sums of squares would lose it."""
    generator = torch.Generator().manual_seed(3)
    original = torch.randint(250, 254, (1, 24, 24, 3), generator=generator)
    frames = original + torch.randint(0, 2, original.shape, generator=generator)
    wanted = _oracle_ssim(frames[0].double().numpy(), original[0].double().numpy())
    assert ssim(frames, original).item() == pytest.approx(wanted, abs=1e-6)


def test_known_values() -> None:
    black, white = torch.zeros(1, 16, 16, 3), torch.full((1, 16, 16, 3), 255)
    assert psnr(black, white).item() == 0.0
    # Both variances are 0, so only the luminance term is left: C1 / (255^2 + C1).
    assert ssim(black, white).item() == pytest.approx(1e-4 / (1 + 1e-4), abs=1e-6)
    one_level = torch.full((1, 16, 16, 3), 1, dtype=torch.uint8)
    assert psnr(black, one_level).item() == pytest.approx(48.1308, abs=1e-4)


def test_equal_frames() -> None:
    frames, _ = _pair(0, (3, 12, 20, 3), 0)
    assert psnr(frames, frames).tolist() == [math.inf] * 3
    assert ssim(frames, frames).tolist() == pytest.approx([1.0] * 3, abs=1e-12)


def test_each_frame_is_judged_alone() -> None:
    frames, original = _pair(1, (4, 16, 16, 3), 30)
    assert psnr(frames, original)[2] == psnr(frames[2:3], original[2:3])[0]
    assert ssim(frames, original)[2] == ssim(frames[2:3], original[2:3])[0]


def test_what_cannot_be_compared() -> None:
    frames = torch.zeros(1, 16, 16, 3)
    for measure in (psnr, ssim):
        with pytest.raises(ValueError, match=r"not \[1, 16, 16, 3\] and \[1, 16, 17, 3\]"):
            measure(frames, torch.zeros(1, 16, 17, 3))
    small = torch.zeros(1, SSIM_MIN_SIDE - 1, 40, 3)
    with pytest.raises(ValueError, match="frames of 40x10 are smaller than the 11x11 window"):
        ssim(small, small)
