"""The optimiser against formulas, and on a problem with a known answer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stepvideo_training.muon import Muon, OptimizerSettings, orthogonalise


@pytest.mark.parametrize("shape", [(32, 32), (16, 200), (200, 16)])
def test_orthogonalise_levels_the_singular_values(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    assert values.max() / values.min() > 1.5
    levelled = orthogonalise(matrix * 1e-3).float()
    found = torch.linalg.svdvals(levelled)
    assert found.min() > 0.5
    assert found.max() < 1.3
    # The directions are kept: close to U V'.
    nearest = left @ right
    cosine = (levelled * nearest).sum() / (levelled.norm() * nearest.norm())
    assert cosine > 0.95


def test_adamw_is_torchs() -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(7, generator=generator)
    mine, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    settings = OptimizerSettings(weight_decay=0.1)
    own = Muon([("bias", mine)], settings)
    reference = torch.optim.AdamW(
        [theirs], lr=0.05, betas=(0.9, 0.98), eps=settings.eps, weight_decay=0.1
    )
    for _ in range(5):
        gradient = torch.randn(7, generator=generator)
        mine.grad, theirs.grad = gradient.clone(), gradient.clone()
        own.step(0.05)
        reference.step()
    assert torch.allclose(mine, theirs, atol=1e-6)


def test_an_update_is_as_large_as_adamws() -> None:
    weight = nn.Parameter(torch.zeros(64, 27 * 64))
    optimizer = Muon([("conv.weight", weight)], OptimizerSettings())
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)) * 1e-4
    optimizer.step(1e-2)
    rms = weight.detach().square().mean().sqrt() / 1e-2
    assert 0.1 < float(rms) < 0.3


def test_who_takes_what() -> None:
    parameters = {
        "block.weight": nn.Parameter(torch.zeros(64, 64)),
        "block.bias": nn.Parameter(torch.zeros(64)),
        "word_embeddings.weight": nn.Parameter(torch.zeros(100, 64)),
        "out.weight": nn.Parameter(torch.zeros(3, 2000)),
    }
    state = Muon(parameters.items(), OptimizerSettings()).state
    assert {name for name in parameters if f"second.{name}" not in state} == {"block.weight"}
    plain = Muon(parameters.items(), OptimizerSettings(matrices=False)).state
    assert all(f"second.{name}" in plain for name in parameters)


def test_it_solves_a_linear_problem() -> None:
    generator = torch.Generator().manual_seed(0)
    wanted = torch.randn(64, 64, generator=generator)
    weight = nn.Parameter(torch.zeros(64, 64))
    optimizer = Muon([("weight", weight)], OptimizerSettings(momentum=0.9))
    for step in range(300):
        inputs = torch.randn(64, 64, generator=generator)
        loss = ((inputs @ (weight - wanted)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step(0.1 * (1 - step / 300))
    assert (weight - wanted).detach().square().mean() < 1e-3
