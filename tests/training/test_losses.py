"""Each loss against its formula, written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from stepvideo_training.losses import (
    edge_weights,
    kl_loss,
    moment_loss,
    psnr,
    reconstruction_loss,
    velocity_loss,
)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_reconstruction(generator: torch.Generator) -> None:
    video, decoded = (torch.rand(2, 3, 3, 8, 8, generator=generator) * 2 - 1 for _ in range(2))
    loss = reconstruction_loss(decoded, video, edge_weight=3.0, l1_weight=0.7, l2_weight=2.0)
    weights = edge_weights(video, 3.0)
    total = 0.0
    for index in torch.cartesian_prod(*(torch.arange(n) for n in video.shape)).tolist():
        b, t, c, y, x = index
        d = float(decoded[b, t, c, y, x] - video[b, t, c, y, x])
        total += float(weights[b, t, 0, y, x]) * (0.7 * abs(d) + 2.0 * d * d)
    assert float(loss) == pytest.approx(total / video.numel(), rel=1e-4)


def test_edges_weigh_more() -> None:
    video = torch.full((1, 1, 3, 16, 16), -1.0)
    video[..., 8:] = 1.0
    weights = edge_weights(video, 4.0)[0, 0, 0]
    assert weights.mean() == pytest.approx(1.0)
    assert weights[5, 8] / weights[5, 0] == pytest.approx(5.0)
    # Two pixels beside the edge on either side, and no further.
    near = weights[5] > weights[5, 0] * 1.01
    assert near.nonzero().flatten().tolist() == [6, 7, 8, 9]


def test_kl(generator: torch.Generator) -> None:
    mean, logvar = (torch.randn(3, 4, generator=generator) for _ in range(2))
    wanted = kl_divergence(Normal(mean, (0.5 * logvar).exp()), Normal(0.0, 1.0)).mean()
    assert float(kl_loss(mean, logvar)) == pytest.approx(float(wanted), rel=1e-5)
    assert float(kl_loss(torch.zeros(3), torch.zeros(3))) == 0.0


def test_moments(generator: torch.Generator) -> None:
    latents = torch.randn(4, 3, 2, 5, 5, generator=generator)
    latents[:, :, 1] = latents[:, :, 1] * 2 + 1
    wanted = 0.0
    for channel in range(2):
        values = latents[:, :, channel].double()
        variance = float(((values - values.mean()) ** 2).mean())
        wanted += (float(values.mean()) ** 2 + math.log(variance) ** 2) / 2
    assert float(moment_loss(latents)) == pytest.approx(wanted, rel=1e-4)
    normed = torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1, 1).expand(2, 1, 3, 2, 2)
    assert float(moment_loss(normed)) == pytest.approx(0.0, abs=1e-6)


def test_velocity(generator: torch.Generator) -> None:
    velocity, noise, data = (torch.randn(2, 3, generator=generator) for _ in range(3))
    wanted = sum(
        float(velocity[i, j] - (data[i, j] - noise[i, j])) ** 2 for i in range(2) for j in range(3)
    )
    assert float(velocity_loss(velocity, noise, data)) == pytest.approx(wanted / 6, rel=1e-5)


def test_psnr() -> None:
    video = torch.zeros(10)
    assert psnr(video + 0.2, video) == pytest.approx(20.0, abs=1e-4)  # 2 / 0.2 is a factor of 10
