"""What to change about a run: for one that does not fit, and for one that takes long."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from stepvideo_bench.explain import Explanation, heaviest_ops, memory_needs
from stepvideo_bench.units import format_seconds
from stepvideo_core.config import TURBO_SAMPLING, ModelConfig
from stepvideo_core.memory.units import format_bytes
from stepvideo_core.request import GenerationSettings


def advise(
    explanation: Explanation,
    config: ModelConfig,
    settings: GenerationSettings,
    dtype: torch.dtype,
) -> tuple[str, ...]:
    """Sentences with numbers, the most pressing first."""
    return (
        *_about_memory(explanation, config, settings, dtype),
        *_about_time(explanation, settings),
    )


def _about_memory(
    explanation: Explanation,
    config: ModelConfig,
    settings: GenerationSettings,
    dtype: torch.dtype,
) -> Iterator[str]:
    if explanation.fits:
        return
    has = format_bytes(explanation.memory)
    named = {stage.name: stage for stage in explanation.stages if not stage.fits}
    for name, stage in named.items():
        total = format_bytes(stage.weights + stage.activations)
        yield f"{name} needs {total} and the device has {has}"
    if any(stage.weights > explanation.memory for stage in named.values()):
        if dtype == torch.float32:
            yield "the weights alone are too much: --dtype bfloat16 halves them"
        else:
            yield "the weights alone are too much: no shorter or smaller video helps"
        return
    chunk = config.vae.frame_chunk
    for frames in range(settings.num_frames - chunk, 0, -chunk):
        shorter = replace(settings, num_frames=frames)
        needs = memory_needs(config, shorter, dtype)
        if all(need.total <= explanation.memory for need in needs):
            yield f"--frames {frames} fits at this size"
            return
    yield "no number of frames fits at this size: make --height and --width smaller"


def _about_time(explanation: Explanation, settings: GenerationSettings) -> Iterator[str]:
    total = explanation.expected_s
    denoise = explanation.stage("denoise")
    stage, op = heaviest_ops(explanation, 1)[0]
    place = f"{op.op} at {op.site}" if op.site else op.op
    yield (
        f"{op.expected_s / total:.0%} of the time is {place} in {stage}, bound by {op.bound}: "
        + (
            "a faster product or fewer tokens helps, faster memory does not"
            if op.bound == "compute"
            else "faster memory or a smaller dtype helps, more arithmetic does not"
        )
    )
    if denoise.expected_s > total / 2:
        turbo = TURBO_SAMPLING.num_steps
        if settings.num_steps > turbo:
            saved = denoise.expected_s * (1 - turbo / settings.num_steps)
            yield f"a distilled checkpoint at {turbo} steps saves {format_seconds(saved)}"
        if settings.uses_guidance:
            yield (
                f"without guidance (--cfg-scale 1) denoising takes half, "
                f"{format_seconds(denoise.expected_s / 2)}; the video changes"
            )
    guessed = [op for _, op in heaviest_ops(explanation, 5) if not op.measured and op.site]
    if guessed:
        names = ", ".join(f"{op.op}@{op.site}" for op in guessed)
        yield f"shares of {names} are typical ones: `stepvideo bench ops` measures them, --measured"
