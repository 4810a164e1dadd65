"""Flow matching: the schedule, the noise, and the Euler loop from noise (t = 0) to data (t = 1).

The transformer predicts the velocity data - noise along x_t = (1 - t) noise + t data, so a step is
x + v dt. Latents stay in float32 between the steps whatever the model's dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from stepvideo_core.config import Numerics
from stepvideo_core.errors import NumericalFailure
from stepvideo_core.models.transformer import StepVideoTransformer, TextContext

_IMAGE_SEED_MASK = 0x696D6167


def sigma_schedule(num_steps: int, time_shift: float) -> Tensor:
    """N + 1 times from 0 to 1 in float32, dense near the noise: 1 - s u / (1 + (s - 1) u).

    u runs evenly from 1 to 0. The order of the float32 operations is the official scheduler's, so
    the values are too.
    """
    u = torch.linspace(1, 0, num_steps + 1, dtype=torch.float32)
    return 1 - time_shift * u / (1 + (time_shift - 1) * u)


def initial_noise(
    shape: Sequence[int], seed: int, *, dtype: torch.dtype, numerics: Numerics = "accurate"
) -> Tensor:
    """Standard normal noise in float32 on the CPU: a seed means the same noise on every device.

    `official` draws it in the model's dtype, as the official pipeline does.
    """
    generator = torch.Generator().manual_seed(seed)
    noise_dtype = dtype if numerics == "official" else torch.float32
    return torch.randn(tuple(shape), generator=generator, dtype=noise_dtype).float()


def image_noise_generator(seed: int) -> torch.Generator:
    """The random numbers of the image's posterior sample, which follow from the run's seed.

    They must be other ones than the initial noise's, or the first frame's noise would be that of
    its condition. torch's CPU generator reads the lower 32 bits of a seed, so those are changed.
    """
    return torch.Generator().manual_seed(seed ^ _IMAGE_SEED_MASK)


def model_timesteps(sigmas: Tensor, dtype: torch.dtype, numerics: Numerics = "accurate") -> Tensor:
    """The times that the model is shown, one per step.

    `official` rounds them to the model's dtype before the model multiplies them by 1000, which in
    bfloat16 is off by up to 4; `accurate` keeps float32.
    """
    times = sigmas[:-1]
    return times.to(dtype) if numerics == "official" else times


def denoise(
    transformer: StepVideoTransformer,
    latents_BFCHW: Tensor,
    sigmas: Tensor,
    conditional: TextContext,
    unconditional: TextContext | None,
    cfg_scale: float,
    *,
    condition_BFCHW: Tensor | None = None,
    motion_score: float | None = None,
    dtype: torch.dtype,
    numerics: Numerics = "accurate",
    on_step: Callable[[], None] | None = None,
) -> Tensor:
    """Integrate from noise to data; returns float32 latents on the input's device.

    latents_BFCHW: float32 noise on the model's device. sigmas: N + 1 times from `sigma_schedule`.
    conditional, unconditional: text contexts of the two guidance branches, which run one after the
    other, each with its own number of text tokens; without the second, guidance is off.
    condition_BFCHW, motion_score: of image-to-video, the same in both branches; the condition is
    in the model's dtype and as large as the latents.
    on_step: called after each step. Raises NumericalFailure if the model's output is not finite.
    """
    device = latents_BFCHW.device
    times = model_timesteps(sigmas, dtype, numerics).to(device)
    modulation = transformer.modulation(times, motion_score)
    rope = transformer.rope(latents_BFCHW, dtype, numerics)
    guidance_dtype = dtype if numerics == "official" else torch.float32
    deltas = (sigmas[1:] - sigmas[:-1]).tolist()
    for step, delta in enumerate(deltas):
        model_input = latents_BFCHW.to(dtype)
        at_step = modulation.at(step)
        velocity = transformer(model_input, at_step, conditional, rope, condition_BFCHW)
        velocity = velocity.to(guidance_dtype)
        if unconditional is not None:
            base = transformer(model_input, at_step, unconditional, rope, condition_BFCHW)
            base = base.to(guidance_dtype)
            velocity = base + cfg_scale * (velocity - base)
        latents_BFCHW = latents_BFCHW + velocity.float() * delta
        # The first step shows a broken kernel or checkpoint before hours are spent on it; the
        # last guards the decoder.
        if step in (0, len(deltas) - 1) and not bool(latents_BFCHW.isfinite().all()):
            raise NumericalFailure(
                f"the latents are not finite after step {step + 1} of {len(deltas)}: check the "
                "checkpoint with `stepvideo inspect`, the kernels with `stepvideo doctor`, or try "
                "--dtype float32"
            )
        if on_step is not None:
            on_step()
    return latents_BFCHW
