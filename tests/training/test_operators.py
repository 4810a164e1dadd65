"""The operators of training: the reference's values, and a gradient through every one of them."""

from __future__ import annotations

from dataclasses import replace

import torch

from stepvideo_core.config import TINY
from stepvideo_core.dispatch import DispatchPlan, DispatchPolicy
from stepvideo_core.models.vae import VideoVAE
from stepvideo_core.plugins import load_registry
from stepvideo_reference.modulation import eager_adaln_modulate
from stepvideo_training.operators import trainable_adaln_modulate, training_plan
from stepvideo_training.vae_task import initialise

CPU = torch.device("cpu")
SMALL = replace(TINY.vae, z_channels=4, decoder=replace(TINY.vae.decoder, multipliers=(2, 1, 1, 1)))


def test_modulation() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 16, generator=generator)
    weight, bias = (torch.randn(16, generator=generator) for _ in range(2))
    shift, scale = (torch.randn(2, 16, generator=generator) for _ in range(2))
    for affine in ((weight, bias), (None, None)):
        mine = trainable_adaln_modulate(x, *affine, 1e-5, shift, scale)
        wanted = eager_adaln_modulate(x, *affine, 1e-5, shift, scale)
        assert torch.allclose(mine, wanted, atol=1e-5)


def test_the_autoencoder_is_the_same_and_every_weight_learns() -> None:
    torch.manual_seed(0)
    training = VideoVAE(SMALL, training_plan(CPU))
    initialise(training)
    plan = DispatchPlan(load_registry(), DispatchPolicy(), device=CPU, dtype=torch.float32)
    shipped = VideoVAE(SMALL, plan)
    shipped.load_state_dict(training.state_dict())
    video = torch.rand(1, 17, 3, 32, 16) * 2 - 1
    posterior = training.encode(video)
    decoded = training.decode(posterior.sample(torch.Generator().manual_seed(0)))
    with torch.no_grad():
        mean = shipped.encode(video).mean
        wanted = shipped.decode(posterior.sample(torch.Generator().manual_seed(0)).detach())
    assert torch.allclose(posterior.mean, mean, atol=1e-4)
    assert torch.allclose(decoded, wanted, atol=1e-3)
    (decoded - video).square().mean().backward()
    idle = [name for name, p in training.named_parameters() if p.grad is None or not p.grad.any()]
    # A bias before the softmax over keys shifts all of a query's scores alike.
    assert all(name.endswith("attn_1.k.conv.bias") for name in idle)
