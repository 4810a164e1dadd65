"""What one evaluation is asked for, and the videos that follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from stepvideo_core.pipeline import StepVideoPipeline
from stepvideo_core.request import Choices, GenerationSettings
from stepvideo_eval.generate import Sample
from stepvideo_eval.prompts import Prompt

HELD_OUT = "held-out"
"""As a source of clips: the world's compositions that training never shows."""


@dataclass(frozen=True, kw_only=True)
class EvalRequest:
    """At least one of prompts, unconditional and reconstruction.

    world: the part of it that the model was trained on. seeds: videos per prompt. seed: of the
    first video; the next have the next ones, so that no two share their noise. unconditional:
    videos of no prompt. references: training clips that those are compared with. reconstruction:
    a folder of videos, `held-out` or None. clips: how many held-out ones. choices: settings of
    the videos, without a seed.
    """

    output: Path
    world: str
    seed: int
    choices: Choices
    prompts: Sequence[Prompt] = ()
    seeds: int = 1
    unconditional: int = 0
    references: int = 2000
    reconstruction: str | None = None
    clips: int = 0


def usual_settings(
    pipe: StepVideoPipeline, request: EvalRequest
) -> tuple[GenerationSettings, list[str]]:
    """The settings that all videos share, for some prompt, and notes about what was rounded."""
    return pipe.settings("something", **request.choices)


def prompted_samples(pipe: StepVideoPipeline, request: EvalRequest) -> list[Sample]:
    """`seeds` videos of each prompt. Raises InvalidRequest for what the model cannot run."""
    samples: list[Sample] = []
    for group, prompt in enumerate(request.prompts):
        for _ in range(request.seeds):
            choices: Choices = {**request.choices, "seed": request.seed + len(samples)}
            settings, _ = pipe.settings(prompt.text, **choices)
            samples.append(
                Sample(number=len(samples) + 1, group=group, prompt=prompt, settings=settings)
            )
    return samples


def unprompted_samples(pipe: StepVideoPipeline, request: EvalRequest) -> list[Sample]:
    """Videos of the empty text without guidance, which training shows by caption dropout."""
    nothing = Prompt(text="", named=None, why_not="there is no prompt")
    usual, _ = usual_settings(pipe, request)
    bare = replace(usual, prompt="", positive_suffix="", negative_prompt="", cfg_scale=1.0)
    return [
        Sample(
            number=number + 1,
            group=0,
            prompt=nothing,
            settings=replace(bare, seed=request.seed + number),
        )
        for number in range(request.unconditional)
    ]


def shared_settings(samples: Sequence[Sample]) -> dict[str, Any]:
    """What the settings of all samples have in common: everything but prompt and seed."""
    settings = asdict(samples[0].settings)
    return {key: value for key, value in settings.items() if key not in ("prompt", "seed")}
