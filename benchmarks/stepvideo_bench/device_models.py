"""Blocks and models on the device: speed at the official size, error against float64."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from stepvideo_bench.device_measure import Bench, Row
from stepvideo_core.config import TINY, VAE_V2, TransformerConfig, VAECoderConfig
from stepvideo_core.dispatch import BackendRegistry, DispatchPlan, DispatchPolicy
from stepvideo_core.models.embeddings import RopeTables
from stepvideo_core.models.transformer import StepVideoTransformer
from stepvideo_core.models.vae import VideoVAE
from stepvideo_core.ops import CONTRACTS

# A decoder of two levels and one frame, which the interpreter does in seconds.
_SMOKE_VAE = replace(
    TINY.vae, decoder=VAECoderConfig(channels=32, multipliers=(2, 1), temporal_levels=())
)
# Every operator's definition, one step at a time: what eager torch would do.
_EAGER = tuple(f"{op}=reference:eager" for op in CONTRACTS)


def _plan(
    registry: BackendRegistry,
    device: torch.device,
    dtype: torch.dtype,
    backend: str,
    ops: tuple[str, ...] = (),
) -> DispatchPlan:
    policy = DispatchPolicy.parse(backend=backend, ops=ops)
    return DispatchPlan(registry, policy, device=device, dtype=dtype)


def _contenders(
    bench: Bench, dtype: torch.dtype, rival: str
) -> Iterator[tuple[str, torch.device, str, tuple[str, ...], torch.dtype]]:
    """Name, device, backend, overrides and dtype of the truth, of plain torch and of the backend.

    The truth is computed where float64 is: on the device, or on the CPU for an NPU.
    """
    exact = torch.device("cpu") if bench.device.type == "npu" else bench.device
    yield "float64", exact, "reference", _EAGER, torch.float64
    overrides = _EAGER if rival == "eager" else ()
    yield rival, bench.device, "reference", overrides, dtype
    yield bench.backend, bench.device, bench.backend, (), dtype


def _fill(model: nn.Module) -> None:
    """Weights that keep activations near one through any depth; the same for the same seed.

    The generators of two device types differ, so what is compared between them is filled on the
    CPU and moved.
    """
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.1
            is_norm = parameter.dim() == 1 and name.endswith("weight")
            parameter.normal_(1.0 if is_norm else 0.0, scale)


def _transformer(
    config: TransformerConfig, plan: DispatchPlan, device: torch.device, dtype: torch.dtype
) -> StepVideoTransformer:
    with torch.device("meta"):
        model = StepVideoTransformer(config, plan)
    model = model.to(dtype).to_empty(device=device).eval()
    _fill(model)
    return model


def _prepared(
    model: StepVideoTransformer, latents: Tensor, text_tokens: int, rounding: torch.dtype
) -> Callable[[Tensor], Tensor]:
    """A velocity prediction for latents of this shape, with random text, ready to be timed.

    rounding: what inputs and RoPE angles are rounded to, whatever the model computes in.
    """
    torch.manual_seed(1)
    dtype, device = latents.dtype, latents.device
    llm, clip = (
        torch.randn(1, tokens, width).to(rounding).to(device, dtype)
        for tokens, width in zip((text_tokens, 8), model.config.caption_channels, strict=True)
    )
    with torch.no_grad():
        text = model.encode_text(llm, clip)
        # A quarter is exact in every dtype; 1000 times another one's rounding would be an angle.
        modulation = model.modulation(torch.tensor([0.25], device=device, dtype=dtype))
    tables = model.rope(latents, rounding)
    if dtype == torch.float64:
        tables = RopeTables(tables.cos_SD.double(), tables.sin_SD.double())
    return lambda latents: model(latents, modulation, text, tables)


def speed_rows(bench: Bench, registry: BackendRegistry) -> Iterator[Row]:
    """One and two layers at 75,888 tokens; a layer is their difference, a forward 48 of them."""
    if bench.real:
        config, shape, dtype = TransformerConfig(), (1, 36, 64, 34, 62), torch.bfloat16
    else:
        config, shape, dtype = TINY.transformer, (1, 2, 8, 2, 2), torch.float32
    latents = torch.randn(shape, device=bench.device).to(dtype)
    seconds: list[float] = []
    for layers in (1, 2):
        plan = _plan(registry, bench.device, dtype, bench.backend)
        model = _transformer(replace(config, num_layers=layers), plan, bench.device, dtype)
        with torch.no_grad():
            predict = _prepared(model, latents, 389 if bench.real else 9, dtype)
            step = functools.partial(predict, latents)
            seconds.append(bench.measure(step))
            peak = bench.peak_memory(step)
        yield {
            "what": f"{layers}-layer transformer",
            "tokens": shape[1] * shape[3] * shape[4],
            "ms": seconds[-1] * 1e3,
            "peak GiB": peak / 2**30,
            "plan": [f"{c.op}@{c.site.name}={c.impl}" for c in plan.choices],
        }
        del model, predict, step
    layer = seconds[1] - seconds[0]
    yield {
        "what": "48-layer forward, extrapolated",
        "ms per layer": layer * 1e3,
        "s": seconds[0] + 47 * layer,
    }


def accuracy_rows(bench: Bench, registry: BackendRegistry) -> Iterator[Row]:
    """A whole block at the official width in bf16: our error beside eager torch's, to float64."""
    heads, shape = (48, (1, 1, 64, 17, 31)) if bench.real else (2, (1, 1, 64, 2, 2))
    config = TransformerConfig(num_layers=1, num_attention_heads=heads)
    latents = torch.randn(shape)
    results = {}
    for name, device, backend, ops, dtype in _contenders(bench, torch.bfloat16, "eager"):
        plan = _plan(registry, device, dtype, backend, ops)
        model = _transformer(config, plan, torch.device("cpu"), torch.bfloat16)
        # Inputs and weights are bf16 numbers in all three; only the arithmetic differs.
        with torch.no_grad():
            exact = latents.bfloat16().to(device, dtype)
            result = _prepared(model.to(device, dtype), exact, 60, torch.bfloat16)(exact)
        results[name] = result.cpu().double()
        del model
    truth = results.pop("float64")
    for name, result in results.items():
        error = ((result - truth).norm() / truth.norm()).item()
        yield {"what": "1-layer transformer, bf16", "backend": name, "relative error": error}


def vae_rows(bench: Bench, registry: BackendRegistry) -> Iterator[Row]:
    """One chunk of the decoder: 3 latent frames to 17 frames of 544x992."""
    config = VAE_V2 if bench.real else _SMOKE_VAE
    dtype = torch.bfloat16 if bench.real else torch.float32
    shape = (1, 3, config.z_channels, 34, 62) if bench.real else (1, 1, config.z_channels, 1, 1)
    plan = _plan(registry, bench.device, dtype, bench.backend)
    with torch.device("meta"):
        model = VideoVAE(config, plan)
    model = model.to(dtype).to_empty(device=bench.device).eval()
    _fill(model)
    latents = torch.randn(shape, device=bench.device).to(dtype)
    with torch.no_grad():
        seconds = bench.measure(lambda: model.decode(latents))
        peak = bench.peak_memory(lambda: model.decode(latents))
    yield {
        "what": "decoder chunk",
        "ms": seconds * 1e3,
        "peak GiB": peak / 2**30,
        "plan": sorted({f"{c.op}={c.impl}" for c in plan.choices}),
    }


def tiny_rows(bench: Bench, registry: BackendRegistry) -> Iterator[Row]:
    """A whole tiny run per backend, a few steps and a decode in float32, against float64."""
    steps, results = (4 if bench.real else 1), {}
    shape = (1, 3, 8, 6, 8) if bench.real else (1, 1, 8, 1, 1)
    torch.manual_seed(2)
    noise = torch.randn(shape)
    for name, device, backend, ops, dtype in _contenders(bench, torch.float32, "reference"):
        plan = _plan(registry, device, dtype, backend, ops)
        transformer = _transformer(TINY.transformer, plan, torch.device("cpu"), torch.float32)
        vae = VideoVAE(TINY.vae if bench.real else _SMOKE_VAE, plan)
        _fill(vae)
        transformer, vae = transformer.to(device, dtype), vae.to(device, dtype)
        latents = noise.to(device, dtype)
        predict = _prepared(transformer, latents, 12, torch.float32)
        with torch.no_grad():
            for _ in range(steps):
                latents = latents + predict(latents) / steps
            results[name] = vae.decode(latents).cpu().double()
    truth = results.pop("float64")
    for name, frames in results.items():
        error = ((frames - truth).abs().max() / truth.abs().max()).item()
        yield {"what": "tiny run, float32", "backend": name, "max relative error": error}
