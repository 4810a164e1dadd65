"""What a run computes, stage by stage: the calls of each model at the sizes of a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from stepvideo_bench.calls import CallLog, RecordingPlan
from stepvideo_bench.presets import Latents
from stepvideo_core.config import CLIP_MAX_TOKENS, LLM_MAX_TOKENS, ModelConfig
from stepvideo_core.models.clip import HunyuanClip
from stepvideo_core.models.step_llm import StepLLM
from stepvideo_core.models.transformer import StepVideoTransformer
from stepvideo_core.models.vae import VideoVAE
from stepvideo_core.ops.cost import Cost
from stepvideo_core.plugins import load_registry

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Workload:
    """One model call and how often a run makes it."""

    name: str
    log: CallLog
    times: int = 1

    @property
    def cost(self) -> Cost:
        """Of all the times."""
        return self.log.cost * self.times


def text_workloads(config: ModelConfig, dtype: torch.dtype, branches: int) -> list[Workload]:
    """Both text encoders on one prompt of the greatest length, once per guidance branch."""
    plan = RecordingPlan(load_registry(), dtype)
    with torch.device("meta"):
        llm = StepLLM(config.step_llm, plan).to(dtype)
        clip = HunyuanClip(config.clip)
        ids = torch.zeros(1, LLM_MAX_TOKENS, dtype=torch.long)
        clip_ids = torch.zeros(1, CLIP_MAX_TOKENS, dtype=torch.long)
    return [
        Workload("step_llm", plan.record(lambda: llm(ids)), branches),
        Workload("clip", plan.record(lambda: _clip_layers(clip, clip_ids)), branches),
    ]


def _clip_layers(clip: HunyuanClip, ids_BP: torch.Tensor) -> None:
    """BERT without its mask, whose preparation looks at values that meta tensors lack."""
    clip.bert(
        input_ids=ids_BP,
        token_type_ids=torch.zeros_like(ids_BP),
        position_ids=torch.zeros_like(ids_BP),
        attention_mask=torch.zeros(1, 1, *2 * [ids_BP.shape[1]], device="meta"),
    )


def transformer_workloads(
    config: ModelConfig,
    latents: Latents,
    text_tokens: int,
    dtype: torch.dtype,
    *,
    branches: int = 1,
    steps: int = 1,
) -> list[Workload]:
    """The text's keys and values, once per branch, and the forward of every step and branch."""
    plan = RecordingPlan(load_registry(), dtype)
    sizes = config.transformer
    with torch.device("meta"):
        model = _frozen(StepVideoTransformer(sizes, plan), dtype)
        clip_tokens = min(CLIP_MAX_TOKENS, text_tokens)
        llm_tokens = text_tokens - clip_tokens
        llm, clip = (
            torch.empty(1, tokens, width, dtype=dtype)
            for tokens, width in zip((llm_tokens, clip_tokens), sizes.caption_channels, strict=True)
        )
        x = torch.empty(latents, dtype=dtype)
        condition = torch.empty_like(x) if sizes.use_additional_conditions else None
        times = torch.empty(1)
    with torch.no_grad():
        text = model.encode_text(llm, clip)
        modulation = model.modulation(times, 1.0 if sizes.use_additional_conditions else None)
        rope = model.rope(x, dtype)
    return [
        Workload("text keys", plan.record(lambda: model.encode_text(llm, clip)), branches),
        Workload(
            "denoise",
            plan.record(lambda: model(x, modulation, text, rope, condition)),
            branches * steps,
        ),
    ]


def decode_workload(config: ModelConfig, latents: Latents, dtype: torch.dtype) -> Workload:
    """The VAE's decoder over all latents; full chunks are alike, so one is recorded."""
    plan = RecordingPlan(load_registry(), dtype)
    with torch.device("meta"):
        vae = _frozen(VideoVAE(config.vae, plan), dtype)
    batch, frames, *rest = latents
    chunk = min(frames, config.vae.latent_chunk)
    log = plan.record(
        lambda: vae.decoder(
            torch.empty(batch, rest[0], chunk, *rest[1:], dtype=dtype, device="meta")
        )
    )
    return Workload("decode", log, -(-frames // chunk))


def run_workloads(
    config: ModelConfig,
    latents: Latents,
    *,
    text_tokens: int,
    steps: int,
    branches: int,
    dtype: torch.dtype,
) -> list[Workload]:
    """A whole run, prompt to frames."""
    return [
        *text_workloads(config, dtype, branches),
        *transformer_workloads(config, latents, text_tokens, dtype, branches=branches, steps=steps),
        decode_workload(config, latents, dtype),
    ]


def _frozen(module: M, dtype: torch.dtype) -> M:
    return module.to(dtype).eval().requires_grad_(False)
