"""Prompt to latents to frames: the whole model, one stage at a time.

    pipe = StepVideoPipeline.from_pretrained("path/to/stepvideo-t2v")
    pipe("a red fox in the snow", frames=51, seed=7).save("fox.mp4")

Each stage loads its model, uses it and frees it before the next is read: Step-LLM, Hunyuan-CLIP,
the VAE's encoder if there is an image, the transformer, the VAE's decoder.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from stepvideo_core.batch import FailedVideo, run_batch
from stepvideo_core.checkpoints.layout import CheckpointLayout, ComponentName, Preset
from stepvideo_core.checkpoints.shared import missing_folders
from stepvideo_core.config import ModelConfig, Numerics
from stepvideo_core.dispatch import AUTO, DispatchPlan, DispatchPolicy, select_device
from stepvideo_core.errors import NumericalFailure
from stepvideo_core.hub import Hub, open_checkpoint
from stepvideo_core.image import fit
from stepvideo_core.memory.estimate import StageNeed, check_fits, stage_needs
from stepvideo_core.memory.residency import Offload, Residency
from stepvideo_core.memory.units import parse_memory
from stepvideo_core.models.clip import HunyuanClip
from stepvideo_core.models.step_llm import StepLLM
from stepvideo_core.models.transformer import StepVideoTransformer
from stepvideo_core.models.vae import VideoVAE
from stepvideo_core.plugins import load_registry
from stepvideo_core.progress import Observer, StageLog
from stepvideo_core.prompts import Request
from stepvideo_core.record import run_record
from stepvideo_core.request import Choices, GenerationSettings, build_settings
from stepvideo_core.result import VideoResult
from stepvideo_core.sampling import (
    denoise,
    image_noise_generator,
    initial_noise,
    sigma_schedule,
)
from stepvideo_core.text import TextEmbedding, TextEncoder
from stepvideo_core.video import to_uint8


class StepVideoPipeline:
    """A Step-Video model with its dispatch plan, ready to run; weights are read when needed."""

    def __init__(
        self,
        layout: CheckpointLayout,
        *,
        policy: DispatchPolicy,
        device: str | None = None,
        dtype: torch.dtype | None = None,
        numerics: Numerics = "accurate",
        offload: Offload = "auto",
    ) -> None:
        registry = load_registry()
        self.layout = layout
        self.config: ModelConfig = layout.config
        self.device = select_device(registry, policy, device)
        self.dtype = dtype or _default_dtype(self.device)
        self.numerics: Numerics = numerics
        self.plan = DispatchPlan(registry, policy, device=self.device, dtype=self.dtype)
        # BERT stays in float32: it is small, and the official server keeps it so.
        dtypes: dict[ComponentName, torch.dtype] = {
            "step_llm": self.dtype,
            "clip": torch.float32,
            "transformer": self.dtype,
            "vae": self.dtype,
        }
        # Building on the meta device costs no memory and shows the plan every call site.
        with torch.device("meta"):
            self.modules: dict[ComponentName, nn.Module] = {
                "step_llm": StepLLM(self.config.step_llm, self.plan),
                "clip": HunyuanClip(self.config.clip),
                "transformer": StepVideoTransformer(self.config.transformer, self.plan),
                "vae": VideoVAE(self.config.vae, self.plan),
            }
        for module in self.modules.values():
            module.eval().requires_grad_(False)
        self.plan.freeze()
        self.residency = Residency(layout, self.modules, dtypes, self.device, offload)
        self.text_encoder = TextEncoder(layout)

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = "tiny",
        *,
        backend: str = AUTO,
        ops: Iterable[str] = (),
        allow_fallback: bool = True,
        shadow: str | None = None,
        device: str | None = None,
        dtype: torch.dtype | None = None,
        numerics: Numerics = "accurate",
        offload: Offload = "auto",
        preset: Preset | None = None,
        shared: str | Path | None = None,
        hub: Hub = "huggingface",
        download: bool = True,
        observer: Observer | None = None,
    ) -> StepVideoPipeline:
        """Open a checkpoint in the official layout, `tiny`, or a model of a hub by its id.

        backend, ops, allow_fallback, shadow: as `--backend`, `--op`, `--no-fallback`, `--shadow`.
        device: torch device string; None chooses by the backend. dtype: None is bfloat16 on an
        accelerator and float32 on the CPU. preset: `t2v` or `turbo`, where names do not say it.
        shared, hub, download, observer: see `hub.open_checkpoint`; the observer watches a download.
        Raises StepVideoError with what to do.
        """
        policy = DispatchPolicy.parse(
            backend=backend, ops=ops, allow_fallback=allow_fallback, shadow=shadow
        )
        return cls(
            open_checkpoint(
                model,
                hub=hub,
                shared=shared,
                preset=preset,
                download=download,
                observer=observer,
            ),
            policy=policy,
            device=device,
            dtype=dtype,
            numerics=numerics,
            offload=offload,
        )

    @property
    def notes(self) -> list[str]:
        """What the user should know about the model itself."""
        found = []
        if self.layout.shared is not None:
            names = ", ".join(missing_folders(self.layout.root))
            found.append(f"{self.layout.name} has no {names}: taken from {self.layout.shared}")
        if not self.layout.is_trained:
            found.append("this model is untrained: the video will be noise, whatever the prompt")
        return found

    def settings(
        self, prompt: str, *, truncate_prompt: bool = False, **choices: Unpack[Choices]
    ) -> tuple[GenerationSettings, list[str]]:
        """Check a request, fill in the model's defaults, and note what is rounded or cut.

        Reads the image if there is one. Raises InvalidRequest for what this model cannot run.
        """
        settings, notes = build_settings(self.config, prompt, choices)
        notes += self.text_encoder.check_length(
            settings.prompt, settings.positive_suffix, truncate=truncate_prompt
        )
        return settings, notes

    def needs(self, settings: GenerationSettings) -> list[StageNeed]:
        """Memory that each stage will take."""
        modules = {str(name): module for name, module in self.modules.items()}
        return stage_needs(self.config, modules, settings, self.dtype, torch.float32)

    def check_memory(self, settings: GenerationSettings, limit: str | None = None) -> None:
        """NotEnoughMemory if a stage will not fit; `limit` as in `--memory-limit 12GiB`."""
        check_fits(
            self.needs(settings), self.device, None if limit is None else parse_memory(limit)
        )

    def encode_text(self, settings: GenerationSettings, log: StageLog) -> list[TextEmbedding]:
        """Embeddings of the prompt and, if guidance is on, of the negative prompt."""
        return self.encode_texts(settings.texts, log)

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str], log: StageLog) -> list[TextEmbedding]:
        """One embedding per text, with each text encoder loaded once for all of them."""
        return self.text_encoder.encode(
            texts,
            self.residency,
            log,
            device=self.device,
            dtype=self.dtype,
            numerics=self.numerics,
        )

    @torch.inference_mode()
    def encode_image(self, settings: GenerationSettings, log: StageLog) -> Tensor | None:
        """The condition of an image-to-video model, [1, F, C, h, w] in its dtype on the CPU.

        Frame 0 is a sample of the encoded image's posterior that the seed decides, the others are
        zero. None without an image.
        """
        if settings.image is None:
            return None
        pixels_CHW = fit(settings.image, settings.height, settings.width)
        with self.residency.borrowed("vae"), log.stage("image", 1, "images") as advance:
            vae = cast("VideoVAE", self.residency.load("vae"))
            posterior = vae.encode(pixels_CHW[None, None].to(self.device, self.dtype))
            image_BFCHW = posterior.sample(image_noise_generator(settings.seed)).cpu()
            advance(1)
        if not bool(image_BFCHW.isfinite().all()):
            raise NumericalFailure(
                "the encoded image is not finite: try --dtype float32, or check the kernels with "
                "`stepvideo doctor`"
            )
        condition = torch.zeros(settings.latent_shape(self.config.vae), dtype=self.dtype)
        condition[:, :1] = image_BFCHW
        return condition

    @torch.inference_mode()
    def sample_latents(
        self,
        settings: GenerationSettings,
        text: list[TextEmbedding],
        log: StageLog,
        latents: Tensor | None = None,
        condition: Tensor | None = None,
    ) -> Tensor:
        """Final latents, float32 on the CPU.

        latents: initial noise instead of the seed's. condition: of `encode_image`, for an
        image-to-video model.
        """
        shape = settings.latent_shape(self.config.vae)
        if latents is None:
            latents = initial_noise(shape, settings.seed, dtype=self.dtype, numerics=self.numerics)
        with self.residency.borrowed("transformer"):
            total = self.residency.num_bytes("transformer")
            with log.stage("load DiT", total, "bytes") as advance:
                module = self.residency.load("transformer", advance)
            transformer = cast("StepVideoTransformer", module)
            with log.stage("denoise", settings.num_steps, "steps") as advance:
                here = [embedding.to(self.device) for embedding in text]
                contexts = [transformer.encode_text(t.llm_1LC, t.clip_1PC) for t in here]
                result = denoise(
                    transformer,
                    latents.to(self.device, torch.float32),
                    sigma_schedule(settings.num_steps, settings.time_shift),
                    contexts[0],
                    contexts[1] if len(contexts) > 1 else None,
                    settings.cfg_scale,
                    condition_BFCHW=None if condition is None else condition.to(self.device),
                    motion_score=settings.motion_score,
                    dtype=self.dtype,
                    numerics=self.numerics,
                    on_step=lambda: advance(1),
                )
        return result.cpu()

    @torch.inference_mode()
    def decode_frames(self, latents: Tensor, log: StageLog) -> Iterator[Tensor]:
        """uint8 frames [t, H, W, 3] on the CPU, chunk by chunk.

        latents: [1, F, C, h, w]. Raises NumericalFailure if a chunk is not finite.
        """
        with self.residency.borrowed("vae"):
            num_frames = self.config.vae.pixel_frames(latents.shape[1])
            with log.stage("decode", num_frames, "frames") as advance:
                vae = cast("VideoVAE", self.residency.load("vae"))
                for chunk in vae.decode_chunks(latents.to(self.device, self.dtype)):
                    if not bool(chunk.isfinite().all()):
                        raise NumericalFailure(
                            "the decoded frames are not finite: try --dtype float32, or check the "
                            "kernels with `stepvideo doctor`"
                        )
                    yield to_uint8(chunk[0], self.numerics)
                    advance(chunk.shape[1])

    def __call__(
        self,
        prompt: str,
        *,
        latents: Tensor | None = None,
        memory_limit: str | None = None,
        observer: Observer | None = None,
        truncate_prompt: bool = False,
        **choices: Unpack[Choices],
    ) -> VideoResult:
        """Generate a video.

        latents: initial noise [1, F, C, h, w] instead of the seed's; decides frames and size.
        memory_limit: refuse a run whose stages need more, e.g. "12GiB".
        truncate_prompt: cut a prompt that is too long instead of refusing it.
        choices: see `Choices`, e.g. `image` and `motion_score` of an image-to-video model; what is
        left out comes from the model.
        """
        if latents is not None:
            choices["latent_shape"] = tuple(latents.shape)
        settings, notes = self.settings(prompt, truncate_prompt=truncate_prompt, **choices)
        self.check_memory(settings, memory_limit)
        log = StageLog(self.device, observer)
        return self.finish(settings, notes, self.encode_text(settings, log), log, latents)

    def batch(
        self,
        requests: Iterable[Request],
        *,
        memory_limit: str | None = None,
        observer: Observer | None = None,
        truncate_prompt: bool = False,
    ) -> Iterator[VideoResult | FailedVideo]:
        """Generate many videos, one after the other, as they are asked for.

            for video in pipe.batch([{"prompt": "a fox", "seed": 1}, {"prompt": "a cat"}]): ...

        requests: a prompt each, with any of `Choices`. All are checked before the first is run,
        with an InvalidRequest that names those at fault; texts are encoded together. A video that
        fails is a `FailedVideo` with its error, and the next one follows.
        """
        return run_batch(
            self,
            list(requests),
            memory_limit=memory_limit,
            truncate_prompt=truncate_prompt,
            observer=observer,
        )

    def finish(
        self,
        settings: GenerationSettings,
        notes: list[str],
        text: list[TextEmbedding],
        log: StageLog,
        latents: Tensor | None = None,
    ) -> VideoResult:
        """The video of a request whose texts are encoded."""
        condition = self.encode_image(settings, log)
        final = self.sample_latents(settings, text, log, latents, condition)
        frames = torch.cat(list(self.decode_frames(final, log)))
        return VideoResult(frames, final, settings.fps, run_record(self, settings, log), notes)


def _default_dtype(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "cpu" else torch.bfloat16
