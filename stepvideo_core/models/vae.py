"""The Video-VAE: chunks of 17 frames, coded independently, with a short blend at the seams."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stepvideo_core.config import VAEConfig
from stepvideo_core.dispatch.plan import DispatchPlan
from stepvideo_core.errors import InvalidRequest
from stepvideo_core.models.vae_coders import Decoder, Encoder


@dataclass(frozen=True)
class Posterior:
    """Diagonal Gaussian over latents [B, F, z, h, w]; no scaling factor."""

    mean: Tensor
    logvar: Tensor

    @classmethod
    def from_parameters(cls, parameters_BFCHW: Tensor) -> Posterior:
        mean, logvar = parameters_BFCHW.chunk(2, dim=2)
        return cls(mean, logvar.clamp(-30.0, 20.0))

    @property
    def std(self) -> Tensor:
        return (0.5 * self.logvar).exp()

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """mean + std * noise; the noise is drawn on the CPU, so a seed means the same anywhere."""
        noise = torch.randn(self.mean.shape, generator=generator)
        return self.mean + self.std * noise.to(self.mean)


class VideoVAE(nn.Module):
    """Encodes [B, T, 3, H, W] pixels in [-1, 1] to [B, F, z, h, w] latents and back."""

    def __init__(self, config: VAEConfig, plan: DispatchPlan) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config, plan)
        self.decoder = Decoder(config, plan)

    def encode(self, video_BTCHW: Tensor) -> Posterior:
        """The posterior of a video of whole 17-frame chunks and, at the end, 1-4 or 9-12 frames.

        Raises InvalidRequest for a length or a size that the network cannot take.
        """
        self._check_pixels(video_BTCHW)
        chunks = video_BTCHW.split(self.config.frame_chunk, dim=1)
        parameters = [self.encoder(chunk.transpose(1, 2)).transpose(1, 2) for chunk in chunks]
        return Posterior.from_parameters(torch.cat(parameters, dim=1))

    def decode(self, latents_BFCHW: Tensor) -> Tensor:
        """The whole video [B, T, 3, H, W]; `decode_chunks` gives the same piece by piece."""
        return torch.cat(list(self.decode_chunks(latents_BFCHW)), dim=1)

    def decode_chunks(self, latents_BFCHW: Tensor) -> Iterator[Tensor]:
        """Final pixels [B, t, 3, H, W] chunk by chunk, seams blended, one chunk of look-ahead."""
        return self.decode_pieces([latents_BFCHW])

    def decode_pieces(self, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        """The same for latents that come in pieces, each of whole chunks but for the last."""
        return blend_seams(
            self.decoder(chunk.transpose(1, 2)).transpose(1, 2)
            for piece_BFCHW in pieces
            for chunk in piece_BFCHW.split(self.config.latent_chunk, dim=1)
        )

    def _check_pixels(self, video_BTCHW: Tensor) -> None:
        frames, (height, width) = video_BTCHW.shape[1], video_BTCHW.shape[3:]
        factor, chunk = self.config.spatial_factor, self.config.frame_chunk
        if height % factor or width % factor:
            raise InvalidRequest(
                f"a frame of {width}x{height} cannot be encoded: both sides must be multiples of "
                f"{factor}"
            )
        rest = frames % chunk
        if self.config.version == 2 and rest and rest not in (1, 2, 3, 4, 9, 10, 11, 12):
            raise InvalidRequest(
                f"{frames} frames cannot be encoded: beyond whole chunks of {chunk}, the last one "
                f"may have 1-4 or 9-12 frames, not {rest}; cut the video to {frames - rest} frames"
            )


def blend_seams(chunks: Iterable[Tensor]) -> Iterator[Tensor]:
    """Blend the last frame of each chunk with the first of the next, as the official decoder does.

    The two updates follow one another: the front frame meets the back frame that has already been
    blended. Holds one chunk back; writes into the chunks it is given.
    """
    held: Tensor | None = None
    for chunk in chunks:
        if held is not None:
            front, back = held[:, -1], chunk[:, 0]
            chunk[:, 0] = 0.6 * back + 0.4 * front
            held[:, -1] = 0.6 * front + 0.4 * chunk[:, 0]
            yield held
        held = chunk
    if held is not None:
        yield held
