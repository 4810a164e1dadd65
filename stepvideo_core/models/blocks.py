"""The transformer block: modulated self-attention, cross-attention to the text, feed-forward."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stepvideo_core.config import TransformerConfig
from stepvideo_core.dispatch.plan import DispatchPlan
from stepvideo_core.models.embeddings import RopeTables
from stepvideo_core.models.layers import Projection, RMSNormWeight
from stepvideo_core.ops import (
    ADALN_MODULATE,
    ATTENTION,
    GATED_RESIDUAL,
    GELU_TANH,
    QK_NORM_ROPE,
    RMS_NORM,
    AttentionSite,
    ModulationSite,
    RMSNormSite,
    RopeSite,
)

_QK_NORM_EPS = 1e-6
# Tokens whose 4 D hidden units exist at once in the feed-forward; rows are independent, so any
# value gives the same result up to the matrix product's own choice of tiles.
FFN_CHUNK_TOKENS = 8192


class SelfAttention(nn.Module):
    """Full attention over all tokens; queries and keys are normalised, then rotated."""

    def __init__(self, config: TransformerConfig, plan: DispatchPlan) -> None:
        super().__init__()
        heads, head_dim, axes = (
            config.num_attention_heads,
            config.attention_head_dim,
            config.rope_axes,
        )
        self.wqkv = Projection(plan, "dit.self", config.dim, 3 * config.dim)
        self.wo = Projection(plan, "dit.self", config.dim, config.dim)
        self.q_norm = RMSNormWeight(head_dim)
        self.k_norm = RMSNormWeight(head_dim)
        self.num_heads, self.axes, self.scale = heads, axes, head_dim**-0.5
        self.attend = plan.bind(
            ATTENTION,
            AttentionSite(name="dit.self", num_heads=heads, num_kv_heads=heads, head_dim=head_dim),
        )
        self.qk_norm_rope = plan.bind(
            QK_NORM_ROPE,
            RopeSite(name="dit.self", num_heads=heads, head_dim=head_dim, axes=axes),
        )

    def forward(self, x_BSD: Tensor, rope: RopeTables) -> Tensor:
        # The checkpoint packs the projection per head: [q | k | v] of head 0, of head 1, ...
        qkv_BSHX = self.wqkv(x_BSD).unflatten(-1, (self.num_heads, -1))
        q, k, v = self.qk_norm_rope(
            qkv_BSHX,
            self.q_norm.weight,
            self.k_norm.weight,
            _QK_NORM_EPS,
            rope.cos_SD,
            rope.sin_SD,
            self.axes,
        )
        out_BSHD = self.attend(q, k, v, self.scale, False, None, None)
        return self.wo(out_BSHD.flatten(2))


@dataclass(frozen=True)
class TextKeyValue:
    """Cross-attention keys (normalised) and values [B, T, H, D] of one block; constant in time."""

    k_BTHD: Tensor
    v_BTHD: Tensor


class CrossAttention(nn.Module):
    """Attention from video tokens to text tokens, without position embedding."""

    def __init__(self, config: TransformerConfig, plan: DispatchPlan) -> None:
        super().__init__()
        heads, head_dim = config.num_attention_heads, config.attention_head_dim
        self.wq = Projection(plan, "dit.cross", config.dim, config.dim)
        self.wkv = Projection(plan, "dit.cross", config.dim, 2 * config.dim)
        self.wo = Projection(plan, "dit.cross", config.dim, config.dim)
        self.q_norm = RMSNormWeight(head_dim)
        self.k_norm = RMSNormWeight(head_dim)
        self.num_heads, self.scale = heads, head_dim**-0.5
        self.attend = plan.bind(
            ATTENTION,
            AttentionSite(
                name="dit.cross",
                num_heads=heads,
                num_kv_heads=heads,
                head_dim=head_dim,
                key_lengths=True,
            ),
        )
        self.rms_norm = plan.bind(RMS_NORM, RMSNormSite(name="dit.cross", width=head_dim))

    def project_text(self, text_BTD: Tensor) -> TextKeyValue:
        """Keys and values of the projected text [B, T, D]; computed once per prompt."""
        # Packed per head: [k | v] of head 0, of head 1, ...
        kv_BTHX = self.wkv(text_BTD).unflatten(-1, (self.num_heads, -1))
        k_BTHD, v_BTHD = kv_BTHX.chunk(2, dim=-1)
        k_BTHD = self.rms_norm(k_BTHD, self.k_norm.weight, _QK_NORM_EPS)
        return TextKeyValue(k_BTHD, v_BTHD.contiguous())

    def forward(
        self, x_BSD: Tensor, text: TextKeyValue, key_lengths: tuple[int, ...] | None
    ) -> Tensor:
        q_BSHD = self.wq(x_BSD).unflatten(-1, (self.num_heads, -1))
        q_BSHD = self.rms_norm(q_BSHD, self.q_norm.weight, _QK_NORM_EPS)
        out_BSHD = self.attend(
            q_BSHD, text.k_BTHD, text.v_BTHD, self.scale, False, key_lengths, None
        )
        return self.wo(out_BSHD.flatten(2))


class _Up(nn.Module):
    """Only there so that the checkpoint key reads `ff.net.0.proj.weight`."""

    def __init__(self, proj: Projection) -> None:
        super().__init__()
        self.proj = proj

    def forward(self, x_BSD: Tensor) -> Tensor:
        return self.proj(x_BSD)


class FeedForward(nn.Module):
    """Linear D to 4 D, GELU (tanh), Linear 4 D to D, no biases."""

    def __init__(self, dim: int, plan: DispatchPlan) -> None:
        super().__init__()
        up = _Up(Projection(plan, "dit.ffn", dim, 4 * dim))
        down = Projection(plan, "dit.ffn", 4 * dim, dim)
        # Index 1 was a dropout in the training code and has no weights.
        self.net = nn.ModuleList([up, nn.Identity(), down])
        self.gelu = plan.bind(GELU_TANH, ModulationSite(name="dit.ffn", width=4 * dim))

    def forward(self, x_BSD: Tensor) -> Tensor:
        up, _, down = self.net
        if x_BSD.shape[1] <= FFN_CHUNK_TOKENS:
            return down(self.gelu(up(x_BSD)))
        out_BSD = torch.empty_like(x_BSD)
        for first in range(0, x_BSD.shape[1], FFN_CHUNK_TOKENS):
            rows = slice(first, first + FFN_CHUNK_TOKENS)
            out_BSD[:, rows] = down(self.gelu(up(x_BSD[:, rows])))
        return out_BSD


class TransformerBlock(nn.Module):
    """x + gate * SelfAttn(mod(LN x)), then + CrossAttn, then + gate * FF(mod(LN x))."""

    def __init__(self, config: TransformerConfig, plan: DispatchPlan) -> None:
        super().__init__()
        dim = config.dim
        self.norm1 = nn.LayerNorm(dim, eps=config.block_norm_eps)
        self.attn1 = SelfAttention(config, plan)
        self.attn2 = CrossAttention(config, plan)
        self.norm2 = nn.LayerNorm(dim, eps=config.block_norm_eps)
        self.ff = FeedForward(dim, plan)
        self.scale_shift_table = nn.Parameter(torch.zeros(6, dim))
        modulation = ModulationSite(name="dit.block", width=dim, affine=True)
        self.modulate = plan.bind(ADALN_MODULATE, modulation)
        self.gated_residual = plan.bind(GATED_RESIDUAL, modulation)

    def project_text(self, text_BTD: Tensor) -> TextKeyValue:
        """This block's cross-attention keys and values of the projected text [B, T, D]."""
        return self.attn2.project_text(text_BTD)

    def forward(
        self,
        x_BSD: Tensor,
        modulation_B6D: Tensor,
        rope: RopeTables,
        text: TextKeyValue,
        key_lengths: tuple[int, ...] | None,
    ) -> Tensor:
        table = self.scale_shift_table + modulation_B6D
        shift_msa, scale_msa, gate_msa, shift_mlp, scale_mlp, gate_mlp = table.unbind(dim=1)
        norm1, norm2 = self.norm1, self.norm2
        x1 = self.modulate(x_BSD, norm1.weight, norm1.bias, norm1.eps, shift_msa, scale_msa)
        x_BSD = self.gated_residual(x_BSD, self.attn1(x1, rope), gate_msa)
        # The query side of the cross-attention is neither normalised nor gated.
        x_BSD = x_BSD + self.attn2(x_BSD, text, key_lengths)
        x2 = self.modulate(x_BSD, norm2.weight, norm2.bias, norm2.eps, shift_mlp, scale_mlp)
        return self.gated_residual(x_BSD, self.ff(x2), gate_mlp)
