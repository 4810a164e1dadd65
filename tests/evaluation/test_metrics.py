"""Smoothness and distances against plain float64 code, and on cases known by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stepvideo_eval.distance import distances, diversity, nearest, thumbnail
from stepvideo_eval.novelty import compare, learnt_thumbnails
from stepvideo_eval.temporal import smoothness
from stepvideo_training.clips import WorldClips
from stepvideo_training.latent_set import transformer_samples
from stepvideo_training.settings import DataSettings


def noise(shape: tuple[int, ...], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


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


def test_what_a_model_learnt_from_is_drawn_again() -> None:
    data = {"source": "world", "num_frames": 5, "height": 32, "width": 48}
    note = {"config": {"seed": 3, "data": data, "dit": {"num_clips": 4}}}
    found = learnt_thumbnails(note, 10)
    assert found is not None
    *_, last = thumbnails = list(found)
    assert len(thumbnails) == 4
    clip = WorldClips(DataSettings(**data)).training_clip(transformer_samples(3, 4)[3])
    frames = ((clip.video_TCHW + 1) / 2 * 255).permute(0, 2, 3, 1).round().byte()
    assert torch.equal(last, thumbnail(frames))
    assert compare([last + 1e-4], [torch.rand_like(last)], thumbnails)["ratio"] < 0.01
    assert learnt_thumbnails({"config": note["config"] | {"data": {"source": "folder"}}}, 1) is None
