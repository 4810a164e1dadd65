"""How much memory each stage will need, before anything is loaded.

Weights are exact; activations are the largest tensors that live at the same time, counted from the
model's own sizes, so they are estimates: measured peaks are printed after every run.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import psutil
import torch
from torch import nn

from stepvideo_core.config import CLIP_MAX_TOKENS, LLM_MAX_TOKENS, ModelConfig, VAEConfig
from stepvideo_core.errors import NotEnoughMemory
from stepvideo_core.memory.units import format_bytes
from stepvideo_core.models.blocks import FFN_CHUNK_TOKENS
from stepvideo_core.request import GenerationSettings

# Input, shortcut, normed copy and output of the widest convolution, and the pixels; measured at
# 4.1 to 4.3 on the CPU (192x256 and 384x512, float32 and bfloat16).
_DECODER_COPIES = 4.3
# The same of the encoder, measured at 2.1 in float32 and 3.3 in bfloat16 (256x256 and 384x512).
_ENCODER_COPIES = 3.4


@dataclass(frozen=True, kw_only=True)
class StageNeed:
    """What one stage keeps in memory at its peak, in bytes."""

    name: str
    weights: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.activations

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"total": self.total}


def available_memory(device: torch.device) -> int:
    """Bytes that a run may still take on a device."""
    if device.type == "cpu":
        return int(psutil.virtual_memory().available)
    return int(torch.accelerator.get_memory_info(device)[0])


def weight_bytes(module: nn.Module, dtype: torch.dtype) -> int:
    """Size of a module's weights in a dtype; the module may be on the meta device."""
    return sum(tensor.numel() for tensor in module.state_dict().values()) * dtype.itemsize


def stage_needs(
    config: ModelConfig,
    modules: dict[str, nn.Module],
    settings: GenerationSettings,
    dtype: torch.dtype,
    clip_dtype: torch.dtype,
) -> list[StageNeed]:
    """The needs of the stages when each model is resident only during its own.

    With an image there are five: the VAE is there twice, to encode it and to decode the video.
    """
    item = dtype.itemsize
    vae_weights = weight_bytes(modules["vae"], dtype)
    image = []
    if settings.image is not None:
        activations = _encoder_activations(config.vae, settings, item)
        image = [StageNeed(name="image", weights=vae_weights, activations=activations)]
    llm = config.step_llm
    llm_activations = LLM_MAX_TOKENS * (6 * llm.hidden_size + 4 * llm.ffn_width) * item
    clip = config.clip
    clip_activations = CLIP_MAX_TOKENS * (8 * clip.hidden_size + clip.intermediate_size) * 4
    return [
        StageNeed(
            name="step_llm",
            weights=weight_bytes(modules["step_llm"], dtype),
            activations=llm_activations,
        ),
        StageNeed(
            name="clip",
            weights=weight_bytes(modules["clip"], clip_dtype),
            activations=clip_activations,
        ),
        *image,
        StageNeed(
            name="transformer",
            weights=weight_bytes(modules["transformer"], dtype),
            activations=_transformer_activations(config, settings, item),
        ),
        StageNeed(
            name="vae",
            weights=vae_weights,
            activations=_decoder_activations(config.vae, settings, item),
        ),
    ]


def _transformer_activations(config: ModelConfig, settings: GenerationSettings, item: int) -> int:
    sizes = config.transformer
    _, frames, _, height, width = settings.latent_shape(config.vae)
    tokens = frames * height * width // sizes.patch_size**2
    stream = tokens * sizes.dim * item
    # x, its normalised copy, q, k, v and the attention's output; later x, x2, the feed-forward's
    # output and one chunk of hidden units.
    attention = 6 * stream
    feed_forward = 4 * stream + 2 * min(tokens, FFN_CHUNK_TOKENS) * 4 * sizes.dim * item
    branches = 2 if settings.uses_guidance else 1
    text = 2 * (CLIP_MAX_TOKENS + LLM_MAX_TOKENS) * sizes.dim * item * sizes.num_layers * branches
    tables = 2 * tokens * sizes.attention_head_dim * 4
    return max(attention, feed_forward) + text + tables


def _encoder_activations(vae: VAEConfig, settings: GenerationSettings, item: int) -> int:
    """The largest activations of encoding a single frame that live at once."""
    encoder = vae.encoder
    widest = 0
    for level, multiplier in enumerate(encoder.multipliers):
        # The causal convolutions work on two zero frames in front of the image.
        pixels = 3 * settings.height * settings.width // 4**level
        widest = max(widest, pixels * encoder.channels * multiplier)
    return int(_ENCODER_COPIES * widest * item)


def _decoder_activations(vae: VAEConfig, settings: GenerationSettings, item: int) -> int:
    """The largest activations of one chunk that live at once."""
    decoder = vae.decoder
    chunk = vae.frame_chunk + vae.surplus_frames
    largest, width = 0, decoder.channels * decoder.multipliers[-1]
    for level in reversed(range(len(decoder.multipliers))):
        temporal = sum(1 for other in decoder.temporal_levels if other <= level)
        scale = 4**level * 2**temporal
        pixels = chunk * settings.height * settings.width // scale
        largest = max(largest, pixels * max(width, decoder.channels * decoder.multipliers[level]))
        width = decoder.channels * decoder.multipliers[level]
    return int(_DECODER_COPIES * largest * item)


def check_fits(needs: list[StageNeed], device: torch.device, limit: int | None) -> None:
    """NotEnoughMemory, with the numbers, if a stage needs more than the limit or the device has."""
    allowed = available_memory(device) if limit is None else limit
    worst = max(needs, key=lambda need: need.total)
    if worst.total <= allowed:
        return
    source = f"{device} has {format_bytes(allowed)} free"
    advice = "make the video shorter (--frames) or smaller, or use a half-precision --dtype"
    if worst.weights > allowed:
        advice = "its weights alone are too much: take a larger device or a half-precision --dtype"
    if limit is None:
        advice += "; --memory-limit overrides this check"
    else:
        source = f"--memory-limit allows {format_bytes(allowed)}"
    raise NotEnoughMemory(
        f"the {worst.name} stage needs about {format_bytes(worst.total)} "
        f"({format_bytes(worst.weights)} weights, {format_bytes(worst.activations)} activations) "
        f"but {source}: {advice}"
    )
