"""The losses, as plain functions of tensors.

Axis letters: B batch, T frames, F latent frames, C channels, H W rows and columns.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

_EDGE_REACH = 2
"""Pixels around an edge that count as near it."""
_EDGE_CONTRAST = 0.2
"""Local contrast, of a range of 2, from which a place counts as an edge in full."""


def edge_weights(video_BTCHW: Tensor, edge_weight: float) -> Tensor:
    """Weights [B, T, 1, H, W], 1 + edge_weight times as large near an edge as on flat ground.

    Their mean is 1 in every clip, so that a clip's loss does not depend on its neighbours.

    The edges are the target's own: places whose neighbourhood spans some contrast.
    """
    frames = video_BTCHW.flatten(0, 1).float()
    size = 2 * _EDGE_REACH + 1
    highest = F.max_pool2d(frames, size, stride=1, padding=_EDGE_REACH)
    lowest = -F.max_pool2d(-frames, size, stride=1, padding=_EDGE_REACH)
    contrast = (highest - lowest).amax(dim=1, keepdim=True)
    weights = 1 + edge_weight * (contrast / _EDGE_CONTRAST).clamp_max(1.0)
    weights_BT1HW = weights.unflatten(0, video_BTCHW.shape[:2])
    return weights_BT1HW / weights_BT1HW.mean(dim=(1, 2, 3, 4), keepdim=True)


def reconstruction_loss(
    decoded_BTCHW: Tensor,
    video_BTCHW: Tensor,
    *,
    edge_weight: float,
    l1_weight: float,
    l2_weight: float,
) -> Tensor:
    """Mean of weights * (l1 |d| + l2 d^2) over all values."""
    difference = decoded_BTCHW.float() - video_BTCHW.float()
    cost = l2_weight * difference.square()
    if l1_weight:
        cost = cost + l1_weight * difference.abs()
    if edge_weight:
        cost = cost * edge_weights(video_BTCHW, edge_weight)
    return cost.mean()


def kl_loss(mean: Tensor, logvar: Tensor) -> Tensor:
    """Divergence of the posterior from the standard normal distribution, mean per element."""
    mean, logvar = mean.float(), logvar.float()
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()


def moment_loss(mean_BFCHW: Tensor) -> Tensor:
    """How far the latents of a batch are from mean 0 and variance 1, channel by channel.

    Step-Video's latents have no scaling factor, so the autoencoder itself must give them unit
    variance: E[mu]^2 + log(Var mu)^2, averaged over channels. Needs a batch of several clips.
    """
    latents_CN = mean_BFCHW.float().transpose(0, 2).flatten(1)
    variance_C = latents_CN.var(dim=1, correction=0)
    return (latents_CN.mean(dim=1).square() + variance_C.clamp_min(1e-8).log().square()).mean()


def velocity_loss(velocity: Tensor, noise: Tensor, data: Tensor) -> Tensor:
    """Flow matching: mean squared difference to data - noise, in float32."""
    return F.mse_loss(velocity.float(), (data - noise).float())


def psnr(decoded: Tensor, video: Tensor, value_range: float = 2.0) -> float:
    """Peak signal-to-noise ratio in dB of pixels that span `value_range`."""
    mse = F.mse_loss(decoded.double(), video.double())
    return float(10 * (value_range**2 / mse).log10())
