"""PSNR, SSIM, smoothness and distances against plain float64 code, and on cases known by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stepvideo_eval.distance import distances, diversity, nearest, thumbnail
from stepvideo_eval.fidelity import MAX_PSNR, psnr, psnr_by_frame, ssim
from stepvideo_eval.novelty import compare
from stepvideo_eval.temporal import smoothness


def noise(shape: tuple[int, ...], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def ssim_oracle(x_HW: np.ndarray, y_HW: np.ndarray) -> float:
    """Window by window, straight from the definition, in float64."""
    offsets = np.arange(11) - 5
    line = np.exp(-0.5 * (offsets / 1.5) ** 2)
    window = np.outer(line, line) / line.sum() ** 2
    values = []
    for top in range(x_HW.shape[0] - 10):
        for left in range(x_HW.shape[1] - 10):
            x = x_HW[top : top + 11, left : left + 11]
            y = y_HW[top : top + 11, left : left + 11]
            mean_x, mean_y = (window * x).sum(), (window * y).sum()
            var_x, var_y = (window * (x - mean_x) ** 2).sum(), (window * (y - mean_y) ** 2).sum()
            covariance = (window * (x - mean_x) * (y - mean_y)).sum()
            c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
            values.append(
                (2 * mean_x * mean_y + c1)
                * (2 * covariance + c2)
                / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
            )
    return float(np.mean(values))


@settings(deadline=None, max_examples=8)
@given(st.integers(11, 17), st.integers(11, 19), st.integers(0, 99), st.integers(0, 255))
def test_ssim_is_its_definition(height: int, width: int, seed: int, change: int) -> None:
    reference = noise((2, height, width, 3), seed)
    video = (reference.int() + noise((2, height, width, 3), seed + 1).int() * change // 255) // 2
    video = video.to(torch.uint8)
    expected = np.mean(
        [
            ssim_oracle(video[t, ..., c].double().numpy(), reference[t, ..., c].double().numpy())
            for t in range(2)
            for c in range(3)
        ]
    )
    assert ssim(video, reference) == pytest.approx(float(expected), abs=2e-5)


def test_ssim_of_flat_frames() -> None:
    """Without variance only the luminance term is left."""
    dark, light = (torch.full((1, 16, 16, 3), value, dtype=torch.uint8) for value in (51, 102))
    expected = (2 * 0.2 * 0.4 + 1e-4) / (0.2**2 + 0.4**2 + 1e-4)
    assert ssim(dark, light) == pytest.approx(expected, abs=1e-4)
    assert ssim(light, light) == pytest.approx(1.0, abs=1e-6)


def test_psnr() -> None:
    video, reference = noise((3, 8, 8, 3), 1), noise((3, 8, 8, 3), 2)
    error = np.mean((video.double().numpy() - reference.double().numpy()) ** 2)
    assert psnr(video, reference) == pytest.approx(20 * math.log10(255) - 10 * math.log10(error))
    off_by_one = torch.full((1, 4, 4, 3), 7, dtype=torch.uint8)
    assert psnr(off_by_one, off_by_one + 1) == pytest.approx(20 * math.log10(255))
    frames = psnr_by_frame(video, torch.cat([video[:1], reference[1:]]))
    assert frames[0] == MAX_PSNR and max(frames[1:]) < 15
    assert psnr(video, video) == MAX_PSNR


@pytest.mark.parametrize(
    ("video", "reference", "message"),
    [
        (noise((1, 16, 16, 3), 0), noise((1, 16, 12, 3), 0), "cannot be compared"),
        (noise((1, 16, 16, 3), 0).float(), noise((1, 16, 16, 3), 0), "must be uint8"),
        (noise((1, 16, 16, 1), 0), noise((1, 16, 16, 1), 0), "must be uint8 .T, H, W, 3."),
        (noise((1, 16, 10, 3), 0), noise((1, 16, 10, 3), 0), "smaller than the 11x11 window"),
    ],
)
def test_what_cannot_be_compared(video: Tensor, reference: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ssim(video, reference)


def test_smoothness_finds_the_seams() -> None:
    """One level a frame, and 51 more at the seam between frames 3 and 4, chunks of 4."""
    levels = torch.tensor([0, 1, 2, 3, 55, 56, 57, 58, 110], dtype=torch.uint8)
    video = levels[:, None, None, None].expand(9, 4, 4, 3)
    found = smoothness(video, chunk=4)
    assert found is not None
    assert found.inside == pytest.approx(1 / 255)
    assert found.at_seams == pytest.approx(52 / 255)
    assert found.seam_ratio == pytest.approx(52)
    assert found.mean == pytest.approx((6 * 1 + 2 * 52) / 8 / 255)
    assert found.largest == pytest.approx(52 / 255)


def test_smoothness_without_seams_motion_or_frames() -> None:
    still = torch.zeros(4, 2, 2, 3, dtype=torch.uint8)
    found = smoothness(still, chunk=17)
    assert found is not None
    assert (found.mean, found.at_seams, found.seam_ratio) == (0.0, None, None)
    assert smoothness(still, chunk=2).seam_ratio is None  # type: ignore[union-attr]
    assert smoothness(still[:1], chunk=17) is None


def test_distances_are_root_mean_squares() -> None:
    a, b = thumbnail(noise((17, 32, 48, 3), 1)), thumbnail(noise((34, 64, 64, 3), 2))
    assert a.shape == b.shape == (8 * 16 * 16 * 3,)
    expected = ((a.double() - b.double()) ** 2).mean().sqrt()
    assert float(distances(a[None], b[None])) == pytest.approx(float(expected), rel=1e-5)
    assert float(distances(a[None], a[None])) == 0
    black, white = (torch.full((9, 16, 16, 3), v, dtype=torch.uint8) for v in (0, 255))
    assert diversity([thumbnail(black), thumbnail(white)]) == pytest.approx(1.0)


def test_diversity_is_the_mean_over_pairs() -> None:
    points = [torch.tensor([value] * 4) for value in (0.0, 0.1, 0.4)]
    assert diversity(points) == pytest.approx((0.1 + 0.4 + 0.3) / 3)
    assert diversity(points[:1]) is None
    assert diversity([points[0]] * 30) == 0


def test_nearest() -> None:
    references = torch.rand(40, 12, generator=torch.Generator().manual_seed(0))
    queries = torch.rand(7, 12, generator=torch.Generator().manual_seed(1))
    queries[3] = references[11]
    found, which = nearest(queries, iter(references))
    table = ((queries[:, None] - references[None]) ** 2).mean(dim=2).sqrt()
    assert torch.allclose(found, table.min(dim=1).values, atol=1e-6)
    assert torch.equal(which, table.argmin(dim=1))
    assert (float(found[3]), int(which[3])) == (0.0, 11)
    with pytest.raises(ValueError, match="no reference"):
        nearest(queries, [])


def test_copies_are_found() -> None:
    generator = torch.Generator().manual_seed(0)
    training, unseen, fresh = torch.rand(3, 20, 30, generator=generator)
    copied = compare(list(training[:5] + 0.001), list(unseen), training)
    assert copied["ratio"] < 0.05 and copied["closer_than_every_control"] == 5
    new = compare(list(fresh), list(unseen), training)
    assert 0.8 < new["ratio"] < 1.25 and new["closer_than_every_control"] < 3
