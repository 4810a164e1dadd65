"""Training of the Video-VAE: reconstruction, a little KL, and latents of unit variance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from stepvideo_core.config import VAEConfig
from stepvideo_core.models.vae import Posterior, VideoVAE
from stepvideo_core.models.vae_blocks import ResnetBlock
from stepvideo_training.clips import ClipSource, window
from stepvideo_training.losses import kl_loss, moment_loss, psnr, reconstruction_loss
from stepvideo_training.operators import training_plan
from stepvideo_training.randomness import LATENT, SampleRandom
from stepvideo_training.settings import VAEStage

_START_LOGVAR = -4.0
_START_BRANCH = 0.3


class Autoencoding(nn.Module):
    """Encode, sample, decode: the call that training differentiates."""

    def __init__(self, vae: VideoVAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(
        self, video_BTCHW: Tensor, noise_BFCHW: Tensor, latent_noise: float
    ) -> tuple[Tensor, Posterior]:
        """noise: standard normal numbers; latent_noise: a std beside the posterior's own."""
        posterior = self.vae.encode(video_BTCHW)
        std = (posterior.logvar.float().exp() + latent_noise**2).sqrt()
        latents = posterior.mean.float() + std * noise_BFCHW
        return self.vae.decode(latents), posterior


class VAETask:
    """What the loop trains for `stepvideo train vae`."""

    module: Autoencoding

    def __init__(
        self,
        config: VAEConfig,
        clips: ClipSource,
        *,
        seed: int,
        held_out_clips: int,
        device: torch.device,
    ) -> None:
        self.config, self.clips, self.device = config, clips, device
        torch.manual_seed(seed)
        vae = VideoVAE(config, training_plan(device))
        initialise(vae)
        self.module = Autoencoding(vae.to(device))
        self._held_out = [SampleRandom(seed, 0, index) for index in range(held_out_clips)]

    @property
    def units(self) -> Sequence[nn.Module]:
        return (self.vae.encoder, self.vae.decoder)

    @property
    def vae(self) -> VideoVAE:
        return self.module.vae

    def loss(
        self, stage: VAEStage, samples: Sequence[SampleRandom]
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        num_frames = stage.num_frames[samples[0].step % len(stage.num_frames)]
        clips = [window(self.clips.training_clip(s).video_TCHW, num_frames, s) for s in samples]
        video = torch.stack(clips).to(self.device)
        shape = self._latent_shape(video)
        noise = torch.stack([sample.normal(shape, LATENT) for sample in samples]).to(self.device)
        decoded, posterior = self.module(video, noise, stage.latent_noise)
        reconstruction = reconstruction_loss(
            decoded,
            video,
            edge_weight=stage.edge_weight,
            l1_weight=stage.l1_weight,
            l2_weight=stage.l2_weight,
        )
        kl = kl_loss(posterior.mean, posterior.logvar)
        loss = reconstruction + stage.kl_weight * kl
        parts = {"reconstruction": reconstruction, "kl": kl}
        if stage.moment_weight:
            parts["moments"] = moment_loss(posterior.mean)
            loss = loss + stage.moment_weight * parts["moments"]
        with torch.no_grad():
            mse = (decoded.float() - video).square().mean()
            parts["psnr"] = 10 * (4 / mse).log10()
            parts["sigma"] = posterior.std.float().mean()
        return loss, parts

    def evaluate(self) -> Mapping[str, float]:
        """PSNR over held-out clips (of the mean squared error of all) and latent statistics."""
        decoded, originals, means = [], [], []
        for sample in self._held_out:
            video = self.clips.held_out_clip(sample).video_TCHW[None].to(self.device)
            mean = self.vae.encode(video).mean
            decoded.append(self.vae.decode(mean).float().clamp(-1, 1))
            originals.append(video)
            means.append(mean.float())
        latents_CN = torch.cat(means).transpose(0, 2).flatten(1)
        rms_C = latents_CN.std(dim=1)
        return {
            "psnr": psnr(torch.cat(decoded), torch.cat(originals)),
            "latent_std_min": float(rms_C.min()),
            "latent_std_max": float(rms_C.max()),
            "latent_mean_max": float(latents_CN.mean(dim=1).abs().max()),
        }

    def rate(self, name: str, stage: VAEStage) -> float:
        return 1.0

    def _latent_shape(self, video_BTCHW: Tensor) -> tuple[int, ...]:
        frames, (height, width) = video_BTCHW.shape[1], video_BTCHW.shape[3:]
        config, factor = self.config, self.config.spatial_factor
        full, rest = divmod(frames, config.frame_chunk)
        # What the network makes of a rest: halved twice and, in version 2, once more, rounding up.
        for _ in range(3 if config.version == 2 else 2):
            rest = (rest + 1) // 2
        latent_frames = full * config.latent_chunk + rest
        return latent_frames, config.z_channels, height // factor, width // factor


@torch.no_grad()
def initialise(vae: VideoVAE) -> None:
    """Residual branches start small, and the posterior starts narrow."""
    for module in vae.modules():
        if isinstance(module, ResnetBlock):
            module.conv2.conv.weight.mul_(_START_BRANCH)
    bias = cast("Tensor", vae.encoder.conv_out.conv.bias)
    bias[vae.config.z_channels :] = _START_LOGVAR
