"""The Step-1 text encoder: a causal language model whose last residual stream is the embedding.

Positions enter only through the attention bias -slope * sqrt(distance). The official code leaves
that to a closed binary; the formula here is StepFun's own published one (Step-Audio).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stepvideo_core.config import StepLLMConfig
from stepvideo_core.dispatch.plan import DispatchPlan
from stepvideo_core.models.layers import Projection, RMSNormWeight
from stepvideo_core.ops import ATTENTION, RMS_NORM, AttentionSite, RMSNormSite


def sqrt_alibi_slopes(num_heads: int) -> Tensor:
    """One slope per head, float32 on the CPU.

    2^(-8 k / n) for k = 1..n, n the largest power of two within `num_heads`; the remaining heads
    take the odd steps of the finer series 2^(-4 (2 j - 1) / n).
    """
    n = 2 ** int(math.log2(num_heads))
    slopes = [2.0 ** (-8.0 * k / n) for k in range(1, n + 1)]
    slopes += [2.0 ** (-4.0 * (2 * j - 1) / n) for j in range(1, num_heads - n + 1)]
    return torch.tensor(slopes, dtype=torch.float32)


class _Attention(nn.Module):
    def __init__(self, config: StepLLMConfig, plan: DispatchPlan) -> None:
        super().__init__()
        self.num_heads, self.num_groups = config.num_attention_heads, config.num_attention_groups
        self.head_dim = config.head_dim
        kv_width = 2 * self.num_groups * self.head_dim
        self.hidden_size = config.hidden_size
        self.wqkv = Projection(
            plan, "step_llm.self", config.hidden_size, config.hidden_size + kv_width
        )
        self.wo = Projection(plan, "step_llm.self", config.hidden_size, config.hidden_size)
        self.attend = plan.bind(
            ATTENTION,
            AttentionSite(
                name="step_llm.self",
                num_heads=self.num_heads,
                num_kv_heads=self.num_groups,
                head_dim=self.head_dim,
                causal=True,
                sqrt_bias=True,
            ),
        )

    def forward(self, x_BLD: Tensor, slopes_H: Tensor) -> Tensor:
        qkv = self.wqkv(x_BLD)
        # All queries first, then [k | v] of each group.
        q, kv = qkv.split([self.hidden_size, qkv.shape[-1] - self.hidden_size], dim=-1)
        k, v = kv.unflatten(-1, (self.num_groups, 2 * self.head_dim)).chunk(2, dim=-1)
        q = q.unflatten(-1, (self.num_heads, self.head_dim))
        out = self.attend(q, k, v, self.head_dim**-0.5, True, None, slopes_H)
        return self.wo(out.flatten(2))


class _FeedForward(nn.Module):
    def __init__(self, config: StepLLMConfig, plan: DispatchPlan) -> None:
        super().__init__()
        self.w1 = Projection(plan, "step_llm.ffn", config.hidden_size, 2 * config.ffn_width)
        self.w2 = Projection(plan, "step_llm.ffn", config.ffn_width, config.hidden_size)

    def forward(self, x_BLD: Tensor) -> Tensor:
        gate, up = self.w1(x_BLD).chunk(2, dim=-1)
        return self.w2(F.silu(gate) * up)


class _Layer(nn.Module):
    def __init__(self, config: StepLLMConfig, plan: DispatchPlan) -> None:
        super().__init__()
        self.attention = _Attention(config, plan)
        self.feed_forward = _FeedForward(config, plan)
        self.attention_norm = RMSNormWeight(config.hidden_size)
        self.ffn_norm = RMSNormWeight(config.hidden_size)
        self.eps = config.layernorm_epsilon
        self.rms_norm = plan.bind(
            RMS_NORM, RMSNormSite(name="step_llm.norm", width=config.hidden_size)
        )

    def forward(self, x_BLD: Tensor, slopes_H: Tensor) -> Tensor:
        normed = self.rms_norm(x_BLD, self.attention_norm.weight, self.eps)
        x_BLD = x_BLD + self.attention(normed, slopes_H)
        normed = self.rms_norm(x_BLD, self.ffn_norm.weight, self.eps)
        return x_BLD + self.feed_forward(normed)


class _Embedding(nn.Module):
    def __init__(self, config: StepLLMConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.padded_vocab_size, config.hidden_size)


class _Layers(nn.Module):
    def __init__(self, config: StepLLMConfig, plan: DispatchPlan) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(config, plan) for _ in range(config.num_layers))


class StepLLM(nn.Module):
    """Token ids [B, L] to hidden states [B, L, hidden_size]; no final norm, no head.

    Attention is causal and ignores padding, so a row's states do not depend on what follows:
    encoding only the valid prefix gives the same states as encoding the padded row.
    """

    def __init__(self, config: StepLLMConfig, plan: DispatchPlan) -> None:
        super().__init__()
        self.config = config
        self.tok_embeddings = _Embedding(config)
        self.transformer = _Layers(config, plan)

    def forward(self, ids_BL: Tensor) -> Tensor:
        x_BLD: Tensor = self.tok_embeddings.word_embeddings(ids_BL)
        bias_dtype = torch.float64 if x_BLD.dtype == torch.float64 else torch.float32
        slopes_H = sqrt_alibi_slopes(self.config.num_attention_heads).to(x_BLD.device, bias_dtype)
        for layer in self.transformer.layers:
            x_BLD = layer(x_BLD, slopes_H)
        return x_BLD
