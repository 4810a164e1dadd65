"""Schedule, noise and Euler loop, against the official scheduler and as properties."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from stepvideo_core.config import TransformerConfig
from stepvideo_core.dispatch import DispatchPlan, DispatchPolicy
from stepvideo_core.errors import NumericalFailure
from stepvideo_core.models.transformer import StepVideoTransformer
from stepvideo_core.plugins import load_registry
from stepvideo_core.sampling import denoise, initial_noise, model_timesteps, sigma_schedule


def test_schedules_are_the_official_ones(golden: Callable[[str], Path]) -> None:
    data = load_file(golden("scheduler.safetensors"))
    names = [name for name in data if name.startswith("steps") and name.endswith("sigmas")]
    assert len(names) == 12
    for name in names:
        steps, shift = (int("".join(filter(str.isdigit, part))) for part in name.split("_"))
        sigmas = sigma_schedule(steps, float(shift))
        assert torch.equal(sigmas, data[name]), name
        times = data[name.replace("sigmas", "timesteps")]
        assert torch.equal(model_timesteps(sigmas, torch.bfloat16), times)


def test_euler_trace(golden: Callable[[str], Path]) -> None:
    """The update rule, fed with the official trace's model outputs."""
    data = load_file(golden("scheduler.safetensors"))
    sigmas = sigma_schedule(3, 13.0)
    sample = data["trace.sample0"]
    for step in range(3):
        delta = (sigmas[step + 1] - sigmas[step]).item()
        sample = sample + data[f"trace.model_output{step}"] * delta
        torch.testing.assert_close(sample, data[f"trace.sample{step + 1}"], rtol=1e-6, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(steps=st.integers(1, 60), shift=st.floats(0.1, 30))
def test_schedules_rise_from_noise_to_data(steps: int, shift: float) -> None:
    sigmas = sigma_schedule(steps, shift)
    assert len(sigmas) == steps + 1
    assert sigmas[0] == pytest.approx(0.0, abs=1e-6)
    assert sigmas[-1] == pytest.approx(1.0, abs=1e-6)
    assert (sigmas[1:] > sigmas[:-1]).all()


def test_official_numerics_round_the_timestep() -> None:
    sigmas = sigma_schedule(50, 13.0)
    official = model_timesteps(sigmas, torch.bfloat16, "official") * 1000
    assert official.dtype == torch.bfloat16
    assert official[1:6].tolist() == [1.5625, 3.1875, 4.875, 6.65625, 8.5]
    assert official[49].item() == 788.0
    accurate = model_timesteps(sigmas, torch.bfloat16) * 1000
    assert accurate[49].item() == pytest.approx(790.3226, abs=1e-3)


def test_seeds_work() -> None:
    shape = (1, 3, 4, 2, 2)
    noise = initial_noise(shape, 7, dtype=torch.float32)
    assert torch.equal(noise, initial_noise(shape, 7, dtype=torch.float32))
    assert torch.equal(noise, initial_noise(shape, 7, dtype=torch.bfloat16))
    assert not torch.equal(noise, initial_noise(shape, 8, dtype=torch.float32))
    assert noise.dtype == torch.float32
    torch.manual_seed(0)
    assert torch.equal(noise, initial_noise(shape, 7, dtype=torch.float32)), "global state"
    official = initial_noise(shape, 7, dtype=torch.bfloat16, numerics="official")
    assert torch.equal(official, official.bfloat16().float())


@pytest.fixture(scope="module")
def small() -> StepVideoTransformer:
    """Two blocks of one head, random weights."""
    config = TransformerConfig(
        num_attention_heads=1,
        num_layers=2,
        in_channels=4,
        out_channels=4,
        caption_channels=(16, 8),
    )
    policy = DispatchPolicy()
    device = torch.device("cpu")
    plan = DispatchPlan(load_registry(), policy, device=device, dtype=torch.float32)
    torch.manual_seed(3)
    model = StepVideoTransformer(config, plan).eval().requires_grad_(False)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return model


def _inputs(model: StepVideoTransformer) -> tuple[torch.Tensor, Any, Any]:
    latents = initial_noise((1, 3, 4, 2, 4), 1, dtype=torch.float32)
    texts = [
        model.encode_text(torch.randn(1, length, 16), torch.randn(1, 7, 8)) for length in (9, 4)
    ]
    return latents, *texts


def test_guidance_scale_one_is_the_conditional_branch(small: StepVideoTransformer) -> None:
    latents, conditional, unconditional = _inputs(small)
    sigmas = sigma_schedule(3, 5.0)
    options: dict[str, Any] = {"dtype": torch.float32}
    alone = denoise(small, latents, sigmas, conditional, None, 1.0, **options)
    both = denoise(small, latents, sigmas, conditional, unconditional, 1.0, **options)
    torch.testing.assert_close(alone, both, rtol=1e-5, atol=1e-5)
    guided = denoise(small, latents, sigmas, conditional, unconditional, 6.0, **options)
    assert not torch.allclose(alone, guided, atol=1e-3)
    zero = denoise(small, latents, sigmas, conditional, unconditional, 0.0, **options)
    other = denoise(small, latents, sigmas, unconditional, None, 1.0, **options)
    torch.testing.assert_close(zero, other, rtol=1e-5, atol=1e-5)


def test_steps_are_counted(small: StepVideoTransformer) -> None:
    latents, conditional, _ = _inputs(small)
    calls: list[None] = []
    denoise(
        small,
        latents,
        sigma_schedule(4, 2.0),
        conditional,
        None,
        1.0,
        dtype=torch.float32,
        on_step=lambda: calls.append(None),
    )
    assert len(calls) == 4


def test_nan_is_reported_after_the_first_step(small: StepVideoTransformer) -> None:
    latents, conditional, _ = _inputs(small)
    latents = latents.clone()
    latents[0, 0, 0, 0, 0] = float("nan")
    with pytest.raises(NumericalFailure, match="after step 1 of 4"):
        denoise(small, latents, sigma_schedule(4, 2.0), conditional, None, 1.0, dtype=torch.float32)
