"""Named sizes: the official videos, and two that any machine can do."""

from __future__ import annotations

from dataclasses import dataclass, replace

from stepvideo_core.config import (
    CLIP_MAX_TOKENS,
    LLM_MAX_TOKENS,
    STEP_VIDEO_T2V,
    TINY,
    ModelConfig,
    TransformerConfig,
    VAECoderConfig,
    VAEConfig,
)
from stepvideo_core.errors import InvalidRequest

TEXT_TOKENS = CLIP_MAX_TOKENS + LLM_MAX_TOKENS
"""The longest text: every preset is measured with it, so that figures are comparable."""

Latents = tuple[int, int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class BenchPreset:
    """Sizes of the measured models and of their latents [1, F, C, h, w]."""

    config: ModelConfig
    dit_latents: Latents
    vae_latents: Latents

    @property
    def tokens(self) -> int:
        _, frames, _, height, width = self.dit_latents
        return frames * height * width // self.config.transformer.patch_size**2


# `small` is the size at which the official implementation was timed on two CPU cores; its VAE has
# 16 latent channels because at these widths the shortcuts allow no more.
_SMALL = replace(
    TINY,
    transformer=TransformerConfig(
        num_attention_heads=8,
        num_layers=4,
        in_channels=16,
        out_channels=16,
    ),
    vae=VAEConfig(
        z_channels=16,
        encoder=VAECoderConfig(channels=32, multipliers=(1, 2, 4, 4), temporal_levels=(1, 2)),
        decoder=VAECoderConfig(channels=32, multipliers=(1, 2, 4, 4), temporal_levels=(2, 3)),
    ),
)


def _official(frames: int, height: int, width: int) -> BenchPreset:
    vae = STEP_VIDEO_T2V.vae
    factor = vae.spatial_factor
    latents = (1, vae.latent_frames(frames), vae.z_channels, height // factor, width // factor)
    return BenchPreset(config=STEP_VIDEO_T2V, dit_latents=latents, vae_latents=latents)


PRESETS: dict[str, BenchPreset] = {
    "204f": _official(204, 544, 992),
    "768sq": _official(204, 768, 768),
    "136f": _official(136, 544, 992),
    "102f": _official(102, 544, 992),
    "51f": _official(51, 544, 992),
    "small": BenchPreset(
        config=_SMALL, dit_latents=(1, 6, 16, 16, 16), vae_latents=(1, 6, 16, 8, 8)
    ),
    "tiny": BenchPreset(config=TINY, dit_latents=(1, 6, 8, 6, 8), vae_latents=(1, 3, 8, 2, 2)),
}


def find_preset(name: str) -> BenchPreset:
    """A preset by name; InvalidRequest if there is none."""
    if name not in PRESETS:
        raise InvalidRequest(f"--preset {name!r} is none of {', '.join(PRESETS)}")
    return PRESETS[name]
