"""The size rule and the frame rule of the VAE."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stepvideo_core.config import VAE_V1, VAE_V2, VAEConfig
from stepvideo_core.errors import InvalidRequest
from stepvideo_core.video.fitting import Chunks, SizeFit

_SAME = SizeFit.plan(16, 16, 16, "exact")


@given(
    height=st.integers(16, 90), width=st.integers(16, 90), fit=st.sampled_from(["crop", "resize"])
)
def test_sides_become_multiples(height: int, width: int, fit: str) -> None:
    size = SizeFit.plan(height, width, 16, fit)  # type: ignore[arg-type]
    for source, target in zip((height, width), size.target, strict=True):
        assert target % 16 == 0
        assert 0 <= source - target < 16 if fit == "crop" else abs(source - target) <= 8
    frames = torch.randint(0, 256, (2, height, width, 3), dtype=torch.uint8)
    fitted = size.apply(frames)
    assert fitted.shape == (2, *size.target, 3)
    assert fitted.dtype == torch.uint8
    assert (size.note is None) == (size.target == (height, width))


def test_the_crop_is_the_centre() -> None:
    frames = torch.arange(20 * 35 * 3).reshape(1, 20, 35, 3)
    size = SizeFit.plan(20, 35, 16, "crop")
    assert torch.equal(size.apply(frames), frames[:, 2:18, 1:33])
    assert size.note == "frames of 35x20 are cropped to 32x16"


def test_scaling_keeps_what_is_smooth() -> None:
    rows = torch.linspace(0, 255, 70)[None, :, None, None]
    frames = rows.expand(1, 70, 70, 3).round().to(torch.uint8)
    scaled = SizeFit.plan(70, 70, 16, "resize").apply(frames)
    wanted = torch.linspace(0, 255, 64)[None, :, None, None].expand(1, 64, 64, 3)
    assert float((scaled - wanted).abs().max()) < 3


@pytest.mark.parametrize(
    ("height", "width", "message"),
    [
        (1080, 1920, "multiples of 16; crop them to 1920x1072 with --fit crop, or scale them"),
        (15, 64, "frames of 64x15 are too small: both sides need at least 16 pixels"),
    ],
)
def test_sizes_that_are_refused(height: int, width: int, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        SizeFit.plan(height, width, 16, "exact")


@given(count=st.integers(1, 60), config=st.sampled_from([VAE_V2, VAE_V1]))
def test_as_many_frames_come_back(count: int, config: VAEConfig) -> None:
    """Every chunk's latents decode to its own number of frames, and the fewest are left out."""
    frames = [torch.full((16, 16, 3), number, dtype=torch.uint8) for number in range(count)]
    chunks = Chunks(iter(frames), config, _SAME)
    lengths = []
    numbers: list[int] = []
    for chunk in chunks:
        lengths.append(len(chunk))
        numbers += chunk[:, 0, 0, 0].tolist()
    assert numbers == list(range(chunks.num_frames))
    assert chunks.num_frames + chunks.num_left_out == count
    assert set(lengths[:-1]) <= {17}
    last = {VAE_V2: [1, 9, 17], VAE_V1: [1, 5, 9, 13, 17]}[config]
    assert lengths[-1] in last
    longer = [length for length in last if length > lengths[-1]]
    assert not longer or lengths[-1] + chunks.num_left_out < longer[0]
    assert bool(chunks.notes) == bool(chunks.num_left_out)
