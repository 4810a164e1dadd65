"""What `bench model` measures: block, transformer, VAE, text encoders, and a whole run."""

from __future__ import annotations

import atexit
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stepvideo_bench.presets import BenchPreset
from stepvideo_bench.workloads import decode_workload, text_workloads, transformer_workloads
from stepvideo_core.config import CLIP_MAX_TOKENS, LLM_MAX_TOKENS
from stepvideo_core.dispatch import DispatchPlan
from stepvideo_core.models.transformer import StepVideoTransformer
from stepvideo_core.models.vae import VideoVAE
from stepvideo_core.ops.cost import Cost

# As many valid words as a usual prompt has, behind CLIP's fixed tokens.
TEXT_TOKENS = CLIP_MAX_TOKENS + 128


@dataclass(frozen=True)
class Subject:
    """Something to call repeatedly.

    cost is called after the measurement, because counting loads torch's symbolic machinery.
    per_call: what one call makes, e.g. {"tokens": 1536}. stages: filled by a whole run.
    """

    call: Callable[[], object]
    input: str
    plan: DispatchPlan
    cost: Callable[[], Cost | None]
    per_call: dict[str, int] = field(default_factory=dict)
    first_frame_s: list[float] = field(default_factory=list)
    stages: list[dict[str, Any]] = field(default_factory=list)


def randomised(module: nn.Module, plan: DispatchPlan, seed: int = 0) -> nn.Module:
    """A module from the meta device with weights of the right scale on the plan's device."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, tensor in module.state_dict().items():
        fan_in = max(tensor[0].numel() if tensor.dim() > 1 else 1, 1)
        values = torch.randn(tensor.shape, generator=generator)
        values = values.mul_(fan_in**-0.5) if tensor.dim() > 1 else values.mul_(0.1).add_(1)
        state[key] = values.to(plan.device, plan.dtype)
    module.load_state_dict(state, assign=True)
    return module.eval().requires_grad_(False)


def _transformer(
    preset: BenchPreset, plan: DispatchPlan
) -> tuple[StepVideoTransformer, dict[str, torch.Tensor]]:
    with torch.device("meta"):
        transformer = StepVideoTransformer(preset.config.transformer, plan)
    randomised(transformer, plan)
    options: dict[str, Any] = {"device": plan.device, "dtype": plan.dtype}
    llm_width, clip_width = preset.config.transformer.caption_channels
    inputs = {
        "llm": torch.randn(1, LLM_MAX_TOKENS, llm_width, **options),
        "clip": torch.randn(1, CLIP_MAX_TOKENS, clip_width, **options),
        "latents": torch.randn(preset.dit_latents, **options),
        "times": torch.tensor([0.3], device=plan.device),
    }
    return transformer, inputs


def dit(preset: BenchPreset, plan: DispatchPlan) -> Subject:
    """One forward with everything that the official call does, so that the two are comparable.

    In a real run the text, the tables and the modulation are computed once for all steps.
    """
    transformer, inputs = _transformer(preset, plan)
    latents = inputs["latents"]

    def forward() -> object:
        text = transformer.encode_text(inputs["llm"], inputs["clip"], (TEXT_TOKENS,))
        rope = transformer.rope(latents, plan.dtype)
        return transformer(latents, transformer.modulation(inputs["times"]), text, rope)

    return Subject(
        forward,
        f"latents {preset.dit_latents}",
        plan,
        lambda: dit_cost(preset, plan.dtype),
        {"tokens": preset.tokens},
    )


def dit_cost(preset: BenchPreset, dtype: torch.dtype) -> Cost:
    """What a forward of the whole transformer computes, the text's keys included."""
    workloads = transformer_workloads(preset.config, preset.dit_latents, TEXT_TOKENS, dtype)
    return sum((workload.cost for workload in workloads), Cost())


def block(preset: BenchPreset, plan: DispatchPlan) -> Subject:
    """One transformer block, its text keys and tables ready, as in every step of a run."""
    config = replace(preset.config.transformer, num_layers=1)
    preset = replace(preset, config=replace(preset.config, transformer=config))
    transformer, inputs = _transformer(preset, plan)
    text = transformer.encode_text(inputs["llm"], inputs["clip"], (TEXT_TOKENS,))
    rope = transformer.rope(inputs["latents"], plan.dtype)
    modulation = transformer.modulation(inputs["times"])
    x_BSD = transformer.pos_embed(inputs["latents"])
    (layer,), (keys,) = transformer.blocks, text.blocks

    def cost() -> Cost:
        # The forward of one layer without the embedding, the output layer and their surroundings.
        _, forward = transformer_workloads(
            preset.config, preset.dit_latents, TEXT_TOKENS, plan.dtype
        )
        calls = forward.log.calls.items()
        return sum((c.cost * n for c, n in calls if c.site.name != "dit.out"), Cost())

    return Subject(
        lambda: layer(x_BSD, modulation.blocks_N6D, rope, keys, None),
        f"tokens {tuple(x_BSD.shape)}",
        plan,
        cost,
        {"tokens": preset.tokens},
    )


def vae(preset: BenchPreset, plan: DispatchPlan) -> Subject:
    """A decode of all latents to pixels."""
    with torch.device("meta"):
        model = VideoVAE(preset.config.vae, plan)
    randomised(model, plan)
    latents = torch.randn(preset.vae_latents, device=plan.device, dtype=plan.dtype)
    return Subject(
        lambda: model.decode(latents),
        f"latents {preset.vae_latents}",
        plan,
        lambda: decode_workload(preset.config, preset.vae_latents, plan.dtype).cost,
        {"frames": preset.config.vae.pixel_frames(preset.vae_latents[1])},
    )


def step_llm(preset: BenchPreset, plan: DispatchPlan) -> Subject:
    """The Step-1 text encoder on a prompt of the greatest length."""
    from stepvideo_core.models.step_llm import StepLLM

    with torch.device("meta"):
        model = StepLLM(preset.config.step_llm, plan)
    randomised(model, plan)
    ids = torch.zeros(1, LLM_MAX_TOKENS, dtype=torch.long, device=plan.device)
    return Subject(
        lambda: model(ids),
        f"ids {tuple(ids.shape)}",
        plan,
        lambda: text_workloads(preset.config, plan.dtype, 1)[0].cost,
        {"tokens": LLM_MAX_TOKENS},
    )


def clip(preset: BenchPreset, plan: DispatchPlan) -> Subject:
    """Hunyuan-CLIP, which stays in float32 in any run."""
    from stepvideo_core.models.clip import HunyuanClip

    model = HunyuanClip(preset.config.clip).to(plan.device).eval().requires_grad_(False)
    ids = torch.zeros(1, CLIP_MAX_TOKENS, dtype=torch.long, device=plan.device)
    mask = torch.ones_like(ids)
    return Subject(
        lambda: model(ids, mask),
        f"ids {tuple(ids.shape)}",
        plan,
        lambda: text_workloads(preset.config, torch.float32, 1)[1].cost,
        {"tokens": CLIP_MAX_TOKENS},
    )


def run(
    backend: str, ops: tuple[str, ...], allow_fallback: bool, device: str, dtype: str
) -> Subject:
    """Prompt to frames with an untrained tiny checkpoint, stage by stage."""
    from stepvideo_core.checkpoints.untrained import write_untrained
    from stepvideo_core.pipeline import StepVideoPipeline
    from stepvideo_core.progress import StageLog

    folder = tempfile.TemporaryDirectory(prefix="stepvideo-bench-")
    atexit.register(folder.cleanup)  # each run reads the weights again, as a user's does
    checkpoint = Path(folder.name) / "tiny"
    write_untrained(checkpoint)
    pipe = StepVideoPipeline.from_pretrained(
        checkpoint,
        backend=backend,
        ops=ops,
        allow_fallback=allow_fallback,
        device=device,
        dtype=getattr(torch, dtype),
    )
    settings, _ = pipe.settings("a red circle moves right")
    subject = Subject(
        lambda: None,
        f"tiny, {settings.num_frames} frames of {settings.width}x{settings.height}, "
        f"{settings.num_steps} steps",
        pipe.plan,
        lambda: None,
        {"frames": settings.num_frames},
    )

    def generate() -> None:
        log = StageLog(pipe.device)
        start = time.perf_counter()
        text = pipe.encode_text(settings, log)
        latents = pipe.sample_latents(settings, text, log)
        for index, _ in enumerate(pipe.decode_frames(latents, log)):
            if index == 0:
                subject.first_frame_s.append(time.perf_counter() - start)
        subject.stages[:] = [report.as_json() for report in log.reports]

    return replace(subject, call=generate)


MODELS: dict[str, Callable[[BenchPreset, DispatchPlan], Subject]] = {
    "dit": dit,
    "block": block,
    "vae": vae,
    "step_llm": step_llm,
    "clip": clip,
}
NAMES = (*MODELS, "run")
