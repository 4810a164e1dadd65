"""Floating-point operations of the models, counted from their sizes (a multiply-add is two)."""

from __future__ import annotations

import torch

from stepvideo_core.config import TransformerConfig, VAEConfig
from stepvideo_core.dispatch import DispatchPlan, DispatchPolicy
from stepvideo_core.models.vae import VideoVAE
from stepvideo_core.plugins import load_registry


def dit_flops(
    config: TransformerConfig, latents: tuple[int, int, int, int, int], text_tokens: int
) -> int:
    """One forward of one branch: matrix products and attention; the rest is below 1 %."""
    batch, frames, _, height, width = latents
    tokens = frames * height * width // config.patch_size**2
    dim = config.dim
    per_token = 2 * dim * dim * (3 + 1 + 1 + 1 + 4 + 4)  # qkv, out, cross q, cross out, up, down
    attention = 4 * tokens * dim * (tokens + text_tokens)
    text = 2 * text_tokens * dim * 2 * dim
    return batch * config.num_layers * (tokens * per_token + attention + text)


def vae_decode_flops(config: VAEConfig, latents: tuple[int, int, int, int, int]) -> int:
    """One decode: what torch's own counter finds on the meta device, convolutions and attention."""
    from torch.utils.flop_counter import FlopCounterMode

    plan = DispatchPlan(
        load_registry(),
        DispatchPolicy.parse(backend="reference", ops=["attention=reference:eager"]),
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        VideoVAE(config, plan).decode(torch.empty(latents))
    return counter.get_total_flops()
