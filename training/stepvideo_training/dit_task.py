"""Training of the diffusion transformer by flow matching, together with the text encoders.

x_t = (1 - t) noise + t data with t in (0, 1); the target is data - noise, and the model is fed t
itself, exactly as `sampling.py` uses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from stepvideo_core.config import ModelConfig
from stepvideo_core.models.transformer import StepVideoTransformer
from stepvideo_training.latent_set import LatentSet
from stepvideo_training.losses import velocity_loss
from stepvideo_training.operators import training_plan
from stepvideo_training.randomness import CAPTION, DROP, LATENT, NOISE, SCENE, TIME, SampleRandom
from stepvideo_training.recompute import recompute_blocks
from stepvideo_training.settings import DiTStage
from stepvideo_training.text_encoders import TextEncoders
from stepvideo_training.tokens import CaptionTokenizer, TextBatch

_EVALUATED_AT = 0.3
"""The time at which captions matter most: late enough to see, too early to know."""


class TextToVelocity(nn.Module):
    """The transformer behind its text encoders: the call that training differentiates."""

    def __init__(self, transformer: StepVideoTransformer, encoders: TextEncoders) -> None:
        super().__init__()
        self.transformer, self.encoders = transformer, encoders

    def forward(self, noisy_BFCHW: Tensor, times_B: Tensor, text: TextBatch) -> Tensor:
        """Velocity [B, F, C, H, W] at each sample's own time."""
        transformer = self.transformer
        llm_BLC, clip_BPC = self.encoders(text)
        context = transformer.encode_text(llm_BLC, clip_BPC, text.lengths)
        modulation = transformer.modulation(times_B)
        rope = transformer.rope(noisy_BFCHW, torch.float32)
        velocity: Tensor = transformer(noisy_BFCHW, modulation, context, rope)
        return velocity


class DiTTask:
    """What the loop trains for `stepvideo train dit`."""

    module: TextToVelocity

    def __init__(
        self,
        config: ModelConfig,
        encoders: TextEncoders,
        tokenizer: CaptionTokenizer,
        training: LatentSet,
        held_out: LatentSet,
        *,
        seed: int,
        device: torch.device,
        recompute: bool = False,
    ) -> None:
        """encoders: pre-trained, on the device, trained further here.

        recompute: keep only the blocks' inputs for the backward pass.
        """
        torch.manual_seed(seed)
        transformer = StepVideoTransformer(config.transformer, training_plan(device))
        initialise(transformer)
        if recompute:
            recompute_blocks(transformer)
        self.module = TextToVelocity(transformer.to(device), encoders)
        self.tokenizer, self.device = tokenizer, device
        self._training, self._held_out, self._seed = training, held_out, seed

    @property
    def units(self) -> Sequence[nn.Module]:
        # Not whole blocks: their cross-attention is called twice, for the text and for the tokens.
        blocks = self.module.transformer.blocks
        return [unit for block in blocks for unit in (block.attn1, block.ff)]

    def loss(
        self, stage: DiTStage, samples: Sequence[SampleRandom]
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        latents = self._training
        rows = [int(sample.numpy(SCENE).integers(len(latents))) for sample in samples]
        shape = tuple(latents.mean_NFCHW.shape[1:])
        data = torch.stack(
            [
                latents.mean_NFCHW[row] + latents.std_NFCHW[row] * sample.normal(shape, LATENT)
                for row, sample in zip(rows, samples, strict=True)
            ]
        ).to(self.device)
        noise = torch.stack([sample.normal(shape, NOISE) for sample in samples]).to(self.device)
        normal = torch.cat([sample.normal((1,), TIME) for sample in samples]).to(self.device)
        times = training_times(normal, stage.time_mean, stage.time_std, stage.time_shift)
        captions = [
            self._caption(latents, row, sample, stage.caption_dropout)
            for row, sample in zip(rows, samples, strict=True)
        ]
        text = self.tokenizer(captions).to(self.device)
        velocity = self.module(interpolate(noise, data, times), times, text)
        loss = velocity_loss(velocity, noise, data)
        return loss, {}

    def evaluate(self) -> Mapping[str, float]:
        """Loss on held-out combinations at one time with the true, no, and a wrong caption.

        As long as they are alike, the model does not read.
        """
        data = self._held_out.mean_NFCHW.to(self.device)
        shape = tuple(data.shape[1:])
        count = len(self._held_out)
        noise = torch.stack(
            [SampleRandom(self._seed, 0, index).normal(shape, NOISE) for index in range(count)]
        ).to(self.device)
        times = torch.full((count,), _EVALUATED_AT, device=self.device)
        noisy = interpolate(noise, data, times)
        true = [captions[0] for captions in self._held_out.captions]
        texts = {"true": true, "empty": [""] * count, "wrong": true[1:] + true[:1]}
        return {
            f"loss_{name}_caption": float(
                velocity_loss(
                    self.module(noisy, times, self.tokenizer(captions).to(self.device)), noise, data
                )
            )
            for name, captions in texts.items()
        }

    def rate(self, name: str, stage: DiTStage) -> float:
        return stage.text_lr if name.startswith("encoders.") else 1.0

    def _caption(self, latents: LatentSet, row: int, sample: SampleRandom, dropout: float) -> str:
        if sample.numpy(DROP).random() < dropout:
            return ""
        texts = latents.captions[row]
        return texts[int(sample.numpy(CAPTION).integers(len(texts)))]


def interpolate(noise: Tensor, data: Tensor, times_B: Tensor) -> Tensor:
    """x_t = (1 - t) noise + t data, with a time per sample."""
    t = times_B.view(-1, *[1] * (data.ndim - 1))
    return (1 - t) * noise + t * data


def training_times(normal_B: Tensor, mean: float, std: float, shift: float) -> Tensor:
    """Times in (0, 1) from standard normal numbers: logit-normal, then the sampler's shift.

    The shift is that of `sampling.sigma_schedule`: it multiplies the odds of noise.
    """
    noise_share = torch.sigmoid(-(mean + std * normal_B))
    return 1 - shift * noise_share / (1 + (shift - 1) * noise_share)


@torch.no_grad()
def initialise(transformer: StepVideoTransformer) -> None:
    """Xavier for matrices; no output and no modulation at first, gates half open.

    A zero gate would leave the blocks without gradient for as long as the output layer is zero.
    """
    for name, parameter in transformer.named_parameters():
        if parameter.ndim >= 2 and "scale_shift_table" not in name:
            nn.init.xavier_uniform_(parameter.view(parameter.shape[0], -1))
        elif name.endswith("bias"):
            parameter.zero_()
    for embedder in (transformer.adaln_single.emb.timestep_embedder,):
        embedder.linear_1.weight.normal_(std=0.05)
        embedder.linear_2.weight.normal_(std=0.05)
    for layer in (transformer.adaln_single.linear, transformer.proj_out):
        layer.weight.zero_()
    for block in transformer.blocks:
        block.scale_shift_table[[2, 5]] = 0.5
        block.attn2.wo.weight.mul_(0.5)
