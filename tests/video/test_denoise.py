"""The official filter over time: does its work, loses no frame, is never skipped in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av.filter
import numpy as np
import pytest
import torch

from stepvideo_core.errors import OutputError
from stepvideo_core.video import check_output, encode

pytestmark = pytest.mark.parametrize("kind", ["mp4", "webm"])


@pytest.mark.parametrize("num_frames", [1, 3, 4, 5, 8, 9, 10, 26])
def test_every_frame_comes_out_in_order(clips: Any, output: Path, num_frames: int) -> None:
    # Steps of brightness that the filter takes for motion, so it must leave them alone.
    levels = torch.arange(num_frames) * 67 % 200 + 20
    frames = levels.to(torch.uint8)[:, None, None, None].expand(num_frames, 32, 32, 3)
    if num_frames < 4 and av.library_versions["libavfilter"] < (11,):
        with pytest.raises(OutputError, match=f"gave 0 of {num_frames} frames"):
            clips.save(output, frames, denoise=True)
        return
    read = clips.read(clips.save(output, frames, denoise=True))
    assert len(read) == num_frames
    np.testing.assert_allclose(read.mean(axis=(1, 2, 3)), levels.numpy(), atol=3)


def test_noise_goes_away(clips: Any, output: Path, tmp_path: Path) -> None:
    # The same in all channels, because halving the chroma would remove coloured noise anyway.
    noise = (clips.noise(20)[..., :1].float() / 255 - 0.5) * 16
    frames = (clips.smooth(1).float() + noise).to(torch.uint8)
    plain = clips.read(clips.save(tmp_path / "plain" / output.name, frames))
    clean = clips.read(clips.save(output, frames, denoise=True))
    assert clean.std(axis=0).mean() < 0.6 * plain.std(axis=0).mean()
    truth = frames.float().mean(dim=0).numpy()
    assert np.abs(clean - truth).mean() < 0.8 * np.abs(plain - truth).mean()


def test_a_missing_filter_is_said(
    clips: Any, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = set(av.filter.filters_available) - {"atadenoise"}
    monkeypatch.setattr(av.filter, "filters_available", others)
    with pytest.raises(OutputError, match=r"atadenoise.*--no-denoise-filter"):
        clips.writer(output, clips.noise(1), denoise=True)
    with pytest.raises(OutputError, match="--no-denoise-filter"):
        check_output(output, denoise=True)
    assert not list(output.parent.iterdir())
    check_output(output)
    assert len(clips.read(clips.save(output, clips.noise(1)))) == 1


def test_lost_frames_are_never_hidden(
    clips: Any, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "DENOISE", ("trim", "end_frame=2"))
    with pytest.raises(OutputError, match=r"gave 2 of 5 frames.*--no-denoise-filter"):
        clips.save(output, clips.smooth(5), denoise=True)
    assert not list(output.parent.iterdir())
