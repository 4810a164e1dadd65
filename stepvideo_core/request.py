"""From what the user typed to settings that a model can run, or one sentence why not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypedDict

from stepvideo_core.config import ModelConfig, VAEConfig
from stepvideo_core.errors import InvalidRequest

DEFAULT_SEED = 1234
"""The official command line's default, which there has no effect; here it has."""


@dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """Everything that determines a video, given a model, a dtype and a plan."""

    prompt: str
    negative_prompt: str
    positive_suffix: str
    num_frames: int
    height: int
    width: int
    num_steps: int
    cfg_scale: float
    time_shift: float
    seed: int
    fps: int

    @property
    def full_prompt(self) -> str:
        """The suffix follows without a separator, as in the official pipeline."""
        return self.prompt + self.positive_suffix

    @property
    def uses_guidance(self) -> bool:
        """Scale 1 is the conditional prediction itself, so the second branch need not run."""
        return self.cfg_scale != 1.0

    @property
    def texts(self) -> list[str]:
        """What the text encoders read: the prompt and, if guidance is on, the negative prompt."""
        return (
            [self.full_prompt, self.negative_prompt] if self.uses_guidance else [self.full_prompt]
        )

    def latent_shape(self, vae: VAEConfig) -> tuple[int, int, int, int, int]:
        """[1, F, C, h, w] of the latents."""
        factor = vae.spatial_factor
        return (
            1,
            vae.latent_frames(self.num_frames),
            vae.z_channels,
            self.height // factor,
            self.width // factor,
        )


class Choices(TypedDict, total=False):
    """What a request may set; None, like leaving it out, means the model's own default.

    latent_shape: of given initial latents; it decides frames, height and width, and a
    contradicting one is an error.
    """

    negative_prompt: str | None
    positive_suffix: str | None
    frames: int | None
    height: int | None
    width: int | None
    steps: int | None
    cfg_scale: float | None
    time_shift: float | None
    seed: int | None
    latent_shape: tuple[int, ...] | None


def build_settings(
    config: ModelConfig, prompt: str, choices: Choices
) -> tuple[GenerationSettings, list[str]]:
    """Settings with the model's defaults filled in, and notes about what was rounded.

    Raises InvalidRequest for anything that no model of this config can run, TypeError for a choice
    that does not exist.
    """
    unknown = set(choices) - Choices.__annotations__.keys()
    if unknown:
        raise TypeError(f"there is no setting {', '.join(sorted(unknown))}")
    defaults, vae = config.sampling, config.vae
    notes: list[str] = []
    if not prompt.strip():
        raise InvalidRequest("the prompt is empty: say what the video should show")
    frames, height, width = choices.get("frames"), choices.get("height"), choices.get("width")
    latent_shape = choices.get("latent_shape")
    if latent_shape is not None:
        frames, height, width = _from_latents(latent_shape, vae, frames, height, width)
    settings = GenerationSettings(
        prompt=prompt,
        negative_prompt=_or(choices.get("negative_prompt"), defaults.negative_prompt),
        positive_suffix=_or(choices.get("positive_suffix"), defaults.positive_suffix),
        num_frames=_rounded_frames(_or(frames, defaults.num_frames), vae, notes),
        height=_checked_size("height", _or(height, defaults.height), vae),
        width=_checked_size("width", _or(width, defaults.width), vae),
        num_steps=_or(choices.get("steps"), defaults.num_steps),
        cfg_scale=float(_or(choices.get("cfg_scale"), defaults.cfg_scale)),
        time_shift=float(_or(choices.get("time_shift"), defaults.time_shift)),
        seed=_or(choices.get("seed"), DEFAULT_SEED),
        fps=defaults.fps,
    )
    if settings.num_steps < 1:
        raise InvalidRequest(f"--steps {settings.num_steps}: at least one step is needed")
    if not (math.isfinite(settings.cfg_scale) and settings.cfg_scale >= 0):
        raise InvalidRequest(f"--cfg-scale {settings.cfg_scale}: give a number from 0 up")
    if not (math.isfinite(settings.time_shift) and settings.time_shift > 0):
        raise InvalidRequest(f"--time-shift {settings.time_shift}: give a number above 0")
    if not 0 <= settings.seed < 2**63:
        raise InvalidRequest(f"--seed {settings.seed}: give an integer from 0 to 2^63 - 1")
    return settings, notes


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _rounded_frames(frames: int, vae: VAEConfig, notes: list[str]) -> int:
    if frames < 1:
        raise InvalidRequest(f"--frames {frames}: a video has at least one frame")
    rounded = vae.pixel_frames(vae.latent_frames(frames))
    if rounded != frames:
        notes.append(
            f"{frames} frames rounded down to {rounded}: the model makes 1 frame or whole chunks "
            f"of {vae.frame_chunk}"
        )
    return rounded


def _checked_size(name: str, size: int, vae: VAEConfig) -> int:
    factor = vae.spatial_factor
    if size < factor or size % factor:
        lower = max(size // factor, 1) * factor
        choices = f"{lower}" if size < factor else f"{lower} or {lower + factor}"
        raise InvalidRequest(f"--{name} {size} is not a multiple of {factor}: use {choices}")
    return size


def _from_latents(
    shape: tuple[int, ...],
    vae: VAEConfig,
    frames: int | None,
    height: int | None,
    width: int | None,
) -> tuple[int, int, int]:
    if len(shape) != 5 or shape[0] != 1 or shape[2] != vae.z_channels or min(shape) < 1:
        raise InvalidRequest(
            f"--latents has shape {list(shape)}; this model needs [1, F, {vae.z_channels}, h, w]"
        )
    factor = vae.spatial_factor
    implied = (vae.pixel_frames(shape[1]), shape[3] * factor, shape[4] * factor)
    for name, asked, found in zip(
        ("frames", "height", "width"), (frames, height, width), implied, strict=True
    ):
        if asked is not None and asked != found:
            raise InvalidRequest(
                f"--{name} {asked} contradicts --latents, whose shape {list(shape)} means {found}"
            )
    return implied
