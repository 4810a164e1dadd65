"""Both text encoders as one trainable module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stepvideo_core.config import ModelConfig
from stepvideo_core.dispatch import DispatchPlan
from stepvideo_core.models.clip import HunyuanClip
from stepvideo_core.models.step_llm import StepLLM
from stepvideo_training.tokens import TextBatch


class TextEncoders(nn.Module):
    """Step-LLM and Hunyuan-CLIP; always in float32, where they run at inference as well."""

    def __init__(self, config: ModelConfig, plan: DispatchPlan) -> None:
        super().__init__()
        self.step_llm = StepLLM(config.step_llm, plan)
        self.clip = HunyuanClip(config.clip)

    def forward(self, text: TextBatch) -> tuple[Tensor, Tensor]:
        """States [B, L, C] of Step-LLM and [B, 77, C'] of Hunyuan-CLIP."""
        with torch.autocast(text.llm_ids_BL.device.type, enabled=False):
            return self.step_llm(text.llm_ids_BL), self.clip(text.clip_ids_BP, text.clip_mask_BP)


@torch.no_grad()
def initialise_step_llm(model: StepLLM) -> None:
    """Unit gain for projections; those that end a residual branch shrink with the depth."""
    shrink = (2 * model.config.num_layers) ** -0.5
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            std = 0.5 if "embeddings" in name else parameter.shape[1] ** -0.5
            parameter.normal_(
                std=std * (shrink if name.endswith(("wo.weight", "w2.weight")) else 1)
            )
