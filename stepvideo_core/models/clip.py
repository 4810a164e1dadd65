"""Hunyuan-CLIP: a BERT encoder whose last hidden states are the second text embedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from stepvideo_core.config import ClipConfig


class HunyuanClip(nn.Module):
    """Token ids [B, 77] and their mask to states [B, 77, hidden_size].

    Its padding positions are attended by the diffusion transformer, so they are computed too.
    """

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.config = config
        settings = BertConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            intermediate_size=config.intermediate_size,
            hidden_act=config.hidden_act,
            max_position_embeddings=config.max_position_embeddings,
            type_vocab_size=config.type_vocab_size,
            layer_norm_eps=config.layer_norm_eps,
            pad_token_id=config.pad_token_id,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        self.bert = BertModel(settings, add_pooling_layer=False)

    def forward(self, ids_BP: Tensor, mask_BP: Tensor) -> Tensor:
        # Positions and segments are passed because transformers keeps its own in buffers that are
        # not part of a checkpoint, and so do not survive a build on the meta device.
        positions = torch.arange(ids_BP.shape[1], device=ids_BP.device)[None]
        output = self.bert(
            input_ids=ids_BP,
            attention_mask=mask_BP,
            token_type_ids=torch.zeros_like(ids_BP),
            position_ids=positions,
        )
        return output.last_hidden_state
