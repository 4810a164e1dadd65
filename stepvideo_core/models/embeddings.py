"""Timestep, position and text embeddings of the diffusion transformer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stepvideo_core.config import Numerics

_SINUSOID_WIDTH = 256
_ROPE_BASE = 10_000.0


def sinusoid(values_N: Tensor) -> Tensor:
    """[N, 256] float32 embedding of scalars: cosines first, then sines, periods up to 10,000.

    values_N: the embedded quantity itself, e.g. 1000 t (not t).
    """
    half = _SINUSOID_WIDTH // 2
    # Order and dtype of the official arithmetic: angles reach 1000 rad, where float32 is coarse.
    frequencies = torch.exp(-math.log(10_000.0) * torch.arange(half, dtype=torch.float32) / half)
    angles = values_N.float()[:, None] * frequencies.to(values_N.device)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class ScalarEmbedder(nn.Module):
    """Sinusoid, Linear, SiLU, Linear: how the timestep and the motion score enter."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(_SINUSOID_WIDTH, dim)
        self.linear_2 = nn.Linear(dim, dim)

    def forward(self, values_N: Tensor) -> Tensor:
        embedded = sinusoid(values_N).to(self.linear_1.weight.dtype)
        return self.linear_2(F.silu(self.linear_1(embedded)))


class ConditionEmbedder(nn.Module):
    """The sum of the embedded timestep and, for image-to-video, the embedded motion score."""

    def __init__(self, dim: int, *, use_motion_score: bool) -> None:
        super().__init__()
        self.timestep_embedder = ScalarEmbedder(dim)
        if use_motion_score:
            self.motion_score_embedder = ScalarEmbedder(dim)

    def forward(self, timesteps_N: Tensor, motion_score: float | None) -> Tensor:
        # The factor 1000 is applied in the timestep's own dtype; see `sampling.model_timesteps`.
        embedded: Tensor = self.timestep_embedder(timesteps_N * 1000)
        if motion_score is not None:
            score = torch.full_like(timesteps_N, motion_score, dtype=embedded.dtype)
            embedded = embedded + self.motion_score_embedder(score)
        return embedded


@dataclass(frozen=True)
class Modulation:
    """What a timestep does to the blocks and to the output layer.

    blocks_N6D: shift, scale, gate of the attention, then of the feed-forward, without the blocks'
        own tables. embedding_ND: the embedding itself, used by the output layer.
    """

    blocks_N6D: Tensor
    embedding_ND: Tensor

    def at(self, index: int) -> Modulation:
        """The row of one timestep, as a batch of one."""
        rows = slice(index, index + 1)
        return Modulation(self.blocks_N6D[rows], self.embedding_ND[rows])


class AdaLNSingle(nn.Module):
    """One modulation for all blocks (PixArt-alpha's adaLN-single)."""

    def __init__(self, dim: int, *, use_motion_score: bool) -> None:
        super().__init__()
        self.emb = ConditionEmbedder(dim, use_motion_score=use_motion_score)
        self.linear = nn.Linear(dim, 6 * dim)

    def forward(self, timesteps_N: Tensor, motion_score: float | None) -> Modulation:
        """timesteps_N: in [0, 1], 0 is noise and 1 is data."""
        embedding_ND = self.emb(timesteps_N, motion_score)
        blocks = self.linear(F.silu(embedding_ND))
        return Modulation(blocks.unflatten(-1, (6, -1)), embedding_ND)


class PatchEmbed(nn.Module):
    """Projects patches of every latent frame to tokens, frame by frame, row by row."""

    def __init__(self, in_channels: int, dim: int, patch_size: int) -> None:
        super().__init__()
        # Holds the weights in the checkpoint's convolution layout; applied as one matrix product.
        self.proj = nn.Conv2d(in_channels, dim, patch_size, patch_size)
        self.patch_size = patch_size

    def forward(self, latents_BFCHW: Tensor) -> Tensor:
        """[B, F, C, h, w] latents to [B, S, D] tokens, S = F * (h / p) * (w / p)."""
        batch, frames, channels, height, width = latents_BFCHW.shape
        p = self.patch_size
        x = latents_BFCHW.reshape(batch, frames, channels, height // p, p, width // p, p)
        patches_BSX = x.permute(0, 1, 3, 5, 2, 4, 6).reshape(batch, -1, channels * p * p)
        return F.linear(patches_BSX, self.proj.weight.flatten(1), self.proj.bias)


class CaptionProjection(nn.Module):
    """Linear, GELU (tanh), Linear on normalised Step-LLM states."""

    def __init__(self, width: int, dim: int, norm_eps: float) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(width, dim)
        self.linear_2 = nn.Linear(dim, dim)
        self.norm_eps = norm_eps

    def forward(self, states_BLC: Tensor) -> Tensor:
        normed = F.layer_norm(states_BLC, states_BLC.shape[-1:], eps=self.norm_eps)
        hidden = F.gelu(self.linear_1(normed), approximate="tanh")
        return self.linear_2(hidden)


@dataclass(frozen=True)
class RopeTables:
    """cos and sin per token and head channel, [S, D]; float32, or float64 for a float64 model."""

    cos_SD: Tensor
    sin_SD: Tensor


def rope_tables(
    grid: tuple[int, int, int],
    axes: tuple[int, int, int],
    *,
    dtype: torch.dtype,
    device: torch.device,
    numerics: Numerics = "accurate",
) -> RopeTables:
    """Tables of RoPE-3D for tokens in (frame, row, column) order.

    grid: tokens along frame, row and column; axes: head channels that turn with each.
    dtype: of the model. The network was trained with angles rounded to it before cos and sin are
    taken, so half precision rounds here too; `official` rounds cos and sin as well.

    Built on the CPU, so that every device gets the same table.
    """
    table_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    columns: list[Tensor] = []
    for axis, (length, width) in enumerate(zip(grid, axes, strict=True)):
        exponents = torch.arange(0, width, 2, dtype=torch.float32) / width
        inverse = (1.0 / _ROPE_BASE**exponents).to(table_dtype)
        angles = torch.arange(length, dtype=table_dtype)[:, None] * inverse
        angles = torch.cat([angles, angles], dim=-1).to(dtype).to(table_dtype)
        shape = [1, 1, 1, width]
        shape[axis] = length
        columns.append(angles.view(shape).expand(*grid, width))
    angles_SD = torch.cat(columns, dim=-1).reshape(-1, sum(axes))
    cos_SD, sin_SD = angles_SD.cos(), angles_SD.sin()
    if numerics == "official":
        cos_SD, sin_SD = (table.to(dtype).to(table_dtype) for table in (cos_SD, sin_SD))
    return RopeTables(cos_SD.to(device), sin_SD.to(device))
