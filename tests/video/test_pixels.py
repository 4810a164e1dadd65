"""The official rule for bytes, and the official crop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stepvideo_core.video import crop_540p, to_uint8


def test_bytes_are_truncated_as_the_official_code_does() -> None:
    grid = torch.linspace(-1.3, 1.3, 3 * 4001, dtype=torch.float32)
    frames = to_uint8(grid.reshape(1, 3, 1, 4001))
    assert frames.shape == (1, 1, 4001, 3)
    assert frames.dtype == torch.uint8
    x = np.clip(grid.numpy().reshape(3, 4001), np.float32(-1), np.float32(1))
    expected = np.floor((x + np.float32(1)) * np.float32(127.5)).astype(np.uint8)
    np.testing.assert_array_equal(frames[0, 0].numpy().T, expected)


@pytest.mark.parametrize(
    ("value", "level"),
    [(-7.0, 0), (-1.0, 0), (0.0, 127), (0.9999, 254), (1.0, 255), (7.0, 255)],
)
def test_levels_at_the_ends_and_in_the_middle(value: float, level: int) -> None:
    assert to_uint8(torch.full((3, 1, 1), value)).tolist() == [[[level] * 3]]


def test_official_numerics_round_in_bfloat16() -> None:
    # 1.01171875 lies between two bfloat16 numbers and goes to 1.015625; times 127.5 is 129.49.
    pixels = torch.full((3, 1, 1), 0.01171875, dtype=torch.bfloat16)
    assert to_uint8(pixels, "official").flatten().tolist() == [129] * 3
    assert to_uint8(pixels, "accurate").flatten().tolist() == [128] * 3


def test_official_numerics_stay_within_a_level_and_change_nothing_in_float32() -> None:
    pixels = torch.linspace(-1.1, 1.1, 3 * 999).reshape(3, 27, 37)
    half = pixels.bfloat16()
    distance = (to_uint8(half, "official").int() - to_uint8(half).int()).abs()
    assert distance.max() == 1
    assert torch.equal(to_uint8(pixels, "official"), to_uint8(pixels))


def test_input_is_not_changed() -> None:
    pixels = torch.full((2, 3, 2, 2), 3.0)
    frames = to_uint8(pixels, "official")
    assert (pixels == 3.0).all()
    assert frames.is_contiguous()


def test_channels_must_stand_before_rows() -> None:
    with pytest.raises(ValueError, match=r"\[\.\.\., 3, H, W\], not \[5, 4, 3\]"):
        to_uint8(torch.zeros(5, 4, 3))


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns"),
    [
        (544, 992, (2, 542), (16, 976)),
        (992, 544, (16, 976), (2, 542)),
        (540, 992, (0, 540), (16, 976)),
        (545, 961, (2, 542), (0, 960)),
    ],
)
def test_crop_keeps_the_official_centre(
    height: int, width: int, rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    assert crop_540p(height, width) == (slice(*rows), slice(*columns))


@pytest.mark.parametrize(
    ("height", "width"),
    [
        (768, 768),
        (1001, 1000),  # halved and floored, as officially, this is a square
        (540, 960),
        (960, 540),
        (539, 2000),
        (544, 944),
        (64, 96),
        (720, 1280),  # the official code would throw half of it away
        (544, 1008),
    ],
)
def test_crop_leaves_every_other_size(height: int, width: int) -> None:
    assert crop_540p(height, width) is None
