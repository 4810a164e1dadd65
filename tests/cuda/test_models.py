"""Whole small models on the CUDA backend, interpreted, against the reference in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from stepvideo_core.config import TINY, TransformerConfig, VAECoderConfig
from stepvideo_core.dispatch import BackendRegistry, DispatchPlan, DispatchPolicy
from stepvideo_core.models.transformer import StepVideoTransformer
from stepvideo_core.models.vae import VideoVAE

CPU = torch.device("cpu")
# Two layers and two heads of the official 128 channels: the size of the recorded golden model.
DIT = TransformerConfig(
    num_attention_heads=2,
    num_layers=2,
    in_channels=16,
    out_channels=16,
    caption_channels=(48, 32),
)
VAE = replace(
    TINY.vae,
    decoder=VAECoderConfig(channels=32, multipliers=(2, 1, 1, 1), temporal_levels=(2, 3)),
)


def _plan(registry: BackendRegistry, backend: str, dtype: torch.dtype) -> DispatchPlan:
    policy = DispatchPolicy.parse(backend=backend, allow_fallback=backend != "cuda")
    return DispatchPlan(registry, policy, device=CPU, dtype=dtype)


def _compare(
    registry: BackendRegistry,
    build: Callable[[DispatchPlan], nn.Module],
    run: Callable[[nn.Module, torch.dtype], Tensor],
    floor: float,
) -> DispatchPlan:
    """The CUDA model must err by at most max(floor, 2 x the reference's own error)."""
    torch.manual_seed(0)
    truth_model = build(_plan(registry, "reference", torch.float64)).double()
    with torch.no_grad():
        for parameter in truth_model.parameters():
            # Not the initial zeros and ones, or half of the model would do nothing.
            scale = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.2
            mean = 1.0 if parameter.dim() == 1 and bool((parameter == 1).all()) else 0.0
            parameter.normal_(mean, scale)
            parameter.copy_(parameter.float())
    results = []
    plans = [_plan(registry, name, torch.float32) for name in ("reference", "cuda")]
    for plan in plans:
        model = build(plan).float()
        model.load_state_dict(truth_model.state_dict())
        with torch.no_grad():
            results.append(run(model, torch.float32).double())
    with torch.no_grad():
        truth = run(truth_model, torch.float64)
    scale = truth.abs().max()
    reference_error, cuda_error = ((result - truth).abs().max() / scale for result in results)
    assert truth.std() > 0.05
    assert cuda_error <= max(floor, 2 * float(reference_error))
    return plans[1]


def test_dit_with_ragged_text(registry: BackendRegistry) -> None:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 3, 16, 2, 3, generator=generator)
    llm, clip = (torch.randn(2, *size, generator=generator) for size in ((6, 48), (3, 32)))

    def run(model: nn.Module, dtype: torch.dtype) -> Tensor:
        assert isinstance(model, StepVideoTransformer)
        text = model.encode_text(llm.to(dtype), clip.to(dtype), (5, 9))
        modulation = model.modulation(torch.tensor([0.2, 0.7], dtype=dtype))
        rope = model.rope(latents, dtype)
        return model(latents.to(dtype), modulation, text, rope)

    plan = _compare(registry, lambda plan: StepVideoTransformer(DIT, plan), run, 1e-5)
    assert {choice.impl for choice in plan.choices} == {"cuda:triton", "cuda:torch"}


def test_vae_decoder_and_encoder(registry: BackendRegistry) -> None:
    generator = torch.Generator().manual_seed(2)
    latents = torch.randn(1, 1, VAE.z_channels, 1, 2, generator=generator)

    def run(model: nn.Module, dtype: torch.dtype) -> Tensor:
        assert isinstance(model, VideoVAE)
        video = model.decode(latents.to(dtype))
        return torch.cat([video.flatten(), model.encode(video).mean.flatten()])

    plan = _compare(registry, lambda plan: VideoVAE(VAE, plan), run, 1e-5)
    assert {choice.impl for choice in plan.choices} == {"cuda:triton", "cuda:channels_last"}


def test_auto_never_takes_the_interpreter(registry: BackendRegistry) -> None:
    plan = DispatchPlan(registry, DispatchPolicy(), device=CPU, dtype=torch.float32)
    StepVideoTransformer(DIT, plan)
    assert {choice.impl.split(":")[0] for choice in plan.choices} == {"reference"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_models_bind_without_fallback(
    registry: BackendRegistry, dtype: torch.dtype
) -> None:
    with torch.device("meta"):
        plan = _plan(registry, "cuda", dtype)
        StepVideoTransformer(DIT, plan)
        VideoVAE(VAE, plan)
    plan.freeze()
    assert all(choice.impl.startswith("cuda:") for choice in plan.choices)
