"""The Step-Video diffusion transformer (text-to-video and image-to-video).

What is constant over the denoising steps is computed once by the caller: the text's keys and
values (`encode_text`), the modulation of every timestep (`modulation`) and the RoPE tables
(`rope`). `forward` is then a single step: embed, blocks, output layer.

Axis letters: B batch, F latent frames, C channels, H W latent rows and columns, S = F H W tokens,
D model width, L caption tokens, T text tokens (CLIP then caption).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from stepvideo_core.config import Numerics, TransformerConfig
from stepvideo_core.dispatch.plan import DispatchPlan
from stepvideo_core.models.blocks import TextKeyValue, TransformerBlock
from stepvideo_core.models.embeddings import (
    AdaLNSingle,
    CaptionProjection,
    Modulation,
    PatchEmbed,
    RopeTables,
    rope_tables,
)
from stepvideo_core.ops import ADALN_MODULATE, ModulationSite


@dataclass(frozen=True)
class TextContext:
    """What the blocks read of a prompt: one key/value pair per block.

    key_lengths: valid text tokens per sample where they differ, else None.
    """

    blocks: tuple[TextKeyValue, ...]
    key_lengths: tuple[int, ...] | None


class StepVideoTransformer(nn.Module):
    """Predicts the velocity data - noise from noisy latents."""

    def __init__(self, config: TransformerConfig, plan: DispatchPlan) -> None:
        super().__init__()
        self.config = config
        dim, (llm_width, clip_width) = config.dim, config.caption_channels
        self.pos_embed = PatchEmbed(config.embed_channels, dim, config.patch_size)
        self.adaln_single = AdaLNSingle(dim, use_motion_score=config.use_additional_conditions)
        self.caption_projection = CaptionProjection(llm_width, dim, config.norm_eps)
        self.clip_projection = nn.Linear(clip_width, dim)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(config, plan) for _ in range(config.num_layers)
        )
        self.scale_shift_table = nn.Parameter(torch.zeros(2, dim))
        self.proj_out = nn.Linear(dim, config.patch_size**2 * config.out_channels)
        self.modulate = plan.bind(ADALN_MODULATE, ModulationSite(name="dit.out", width=dim))

    @property
    def blocks(self) -> list[TransformerBlock]:
        return cast("list[TransformerBlock]", list(self.transformer_blocks))

    def encode_text(
        self, llm_BLC: Tensor, clip_BPC: Tensor, lengths: tuple[int, ...] | None = None
    ) -> TextContext:
        """Project text states and compute every block's keys and values.

        llm_BLC: Step-LLM states [B, L, caption_channels[0]]; clip_BPC: Hunyuan-CLIP states
        [B, P, caption_channels[1]]. Text tokens are CLIP's first, then Step-LLM's.
        lengths: valid text tokens per sample (a prefix of P + L); None means all of them.
        """
        text_BTD = torch.cat(
            [self.clip_projection(clip_BPC), self.caption_projection(llm_BLC)], dim=1
        )
        if lengths is not None:
            text_BTD = text_BTD[:, : max(lengths)]
            if min(lengths) == max(lengths):
                lengths = None
        return TextContext(tuple(block.project_text(text_BTD) for block in self.blocks), lengths)

    def modulation(self, timesteps_N: Tensor, motion_score: float | None = None) -> Modulation:
        """The modulation of N timesteps in [0, 1] (0 noise, 1 data); `motion_score` for TI2V."""
        modulation: Modulation = self.adaln_single(timesteps_N, motion_score)
        return modulation

    def rope(
        self, latents_BFCHW: Tensor, dtype: torch.dtype, numerics: Numerics = "accurate"
    ) -> RopeTables:
        """Position tables for latents of this shape, on their device."""
        frames, (height, width) = latents_BFCHW.shape[1], latents_BFCHW.shape[3:]
        patch = self.config.patch_size
        return rope_tables(
            (frames, height // patch, width // patch),
            self.config.rope_axes,
            dtype=dtype,
            device=latents_BFCHW.device,
            numerics=numerics,
        )

    def forward(
        self,
        latents_BFCHW: Tensor,
        modulation: Modulation,
        text: TextContext,
        rope: RopeTables,
        condition_BFCHW: Tensor | None = None,
    ) -> Tensor:
        """One velocity prediction [B, F, C, H, W] in the model's dtype.

        latents_BFCHW: noisy latents in the model's dtype; modulation: one row per sample.
        condition_BFCHW: the latents of the given image, for an image-to-video model only.
        """
        shape = latents_BFCHW.shape
        if condition_BFCHW is not None:
            latents_BFCHW = torch.cat([latents_BFCHW, condition_BFCHW], dim=2)
        x_BSD = self.pos_embed(latents_BFCHW)
        for block, block_text in zip(self.blocks, text.blocks, strict=True):
            x_BSD = block(x_BSD, modulation.blocks_N6D, rope, block_text, text.key_lengths)
        table = self.scale_shift_table + modulation.embedding_ND[:, None]
        shift_BD, scale_BD = table.unbind(dim=1)
        x_BSD = self.modulate(x_BSD, None, None, self.config.norm_eps, shift_BD, scale_BD)
        return self._unpatchify(self.proj_out(x_BSD), shape)

    def _unpatchify(self, x_BSX: Tensor, shape: torch.Size) -> Tensor:
        batch, frames, _, height, width = shape
        p = self.config.patch_size
        x = x_BSX.reshape(batch, frames, height // p, width // p, p, p, -1)
        return x.permute(0, 1, 6, 2, 4, 3, 5).reshape(batch, frames, -1, height, width)
