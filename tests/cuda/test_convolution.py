"""Convolutions sliced in time, over samples and over frames equal the whole one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from stepvideo_cuda.convolution import sliced_causal_conv3d, sliced_conv2d


@pytest.mark.parametrize("max_elements", [1, 700, 2000, 10**9])
@pytest.mark.parametrize("front_frames", [0, 2])
@pytest.mark.parametrize(
    ("kernel", "stride"), [(3, (1, 1, 1)), (3, (2, 2, 2)), (1, (1, 1, 1))], ids=str
)
def test_conv3d_slices(
    kernel: int,
    stride: tuple[int, int, int],
    front_frames: int,
    max_elements: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 7, 6, 5, generator=generator)
    weight = torch.randn(6, 4, kernel, kernel, kernel, generator=generator)
    bias = torch.randn(6, generator=generator)
    pad = kernel // 2
    padded = F.pad(x, (pad, pad, pad, pad, front_frames, 0))
    expected = F.conv3d(padded, weight, bias, stride=stride)

    pieces = []
    convolve = F.conv3d

    def watched(piece: torch.Tensor, *rest: object, **named: object) -> torch.Tensor:
        out = convolve(piece, *rest, **named)  # type: ignore[arg-type]
        pieces.append((piece, out))
        return out

    monkeypatch.setattr(F, "conv3d", watched)
    out = sliced_causal_conv3d(x, weight, bias, stride, front_frames, max_elements)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    assert out.is_contiguous(memory_format=torch.channels_last_3d)
    assert all(piece.is_contiguous(memory_format=torch.channels_last_3d) for piece, _ in pieces)
    if max_elements == 10**9:
        assert len(pieces) == 1
    for piece, result in pieces:
        fits = piece.numel() <= max_elements and result.numel() <= max_elements
        assert fits or result.shape[2] == 1


@pytest.mark.parametrize("max_elements", [1, 500, 10**9])
@pytest.mark.parametrize(("stride", "padding"), [(2, (0, 1, 0, 1)), (1, (1, 1, 1, 1))])
def test_conv2d_slices(stride: int, padding: tuple[int, int, int, int], max_elements: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 4, 6, 8, generator=generator)
    weight, bias = torch.randn(4, 4, 3, 3, generator=generator), torch.randn(4, generator=generator)
    expected = F.conv2d(F.pad(x, padding), weight, bias, stride=stride)
    out = sliced_conv2d(x, weight, bias, stride, padding, max_elements)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_float32_switches_tf32_off_and_restores_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    convolve = F.conv3d

    def watched(*args: object, **named: object) -> torch.Tensor:
        seen.append(torch.backends.cudnn.allow_tf32)
        return convolve(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(F, "conv3d", watched)
    before = torch.backends.cudnn.allow_tf32
    x, weight = torch.randn(1, 2, 1, 3, 3), torch.randn(2, 2, 1, 1, 1)
    for dtype in (torch.float32, torch.bfloat16):
        sliced_causal_conv3d(
            x.to(dtype), weight.to(dtype), torch.zeros(2, dtype=dtype), (1, 1, 1), 0, 10**9
        )
    assert seen == [False, before]
    assert torch.backends.cudnn.allow_tf32 is before
