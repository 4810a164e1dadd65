"""The videos of a batch before the first step: checked, named, and compared with what is there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, cast

from stepvideo_core.checkpoints.files import read_json
from stepvideo_core.cli.finish import latents_path
from stepvideo_core.cli.generate import Finishing
from stepvideo_core.cli.naming import fill_template
from stepvideo_core.errors import CheckpointError, InvalidRequest, OutputError, StepVideoError
from stepvideo_core.fingerprint import fingerprint
from stepvideo_core.latents_file import read_latents
from stepvideo_core.pipeline import StepVideoPipeline
from stepvideo_core.prompts import PromptLine, Request, listed
from stepvideo_core.request import Choices, GenerationSettings
from stepvideo_core.video import check_output, read_metadata, sidecar_path
from stepvideo_core.video.record import FOLDER_RECORD


class State(str, Enum):
    """What is left to do for a video."""

    todo = "todo"
    latents = "latents"
    """Its final latents are there, from a run that ended while decoding."""
    present = "present"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One video of a batch."""

    index: int
    line: int
    request: Request
    texts: list[str]
    seed: int
    output: Path
    fingerprint: str
    state: State

    @property
    def prompt(self) -> str:
        return self.request["prompt"]

    def as_json(self) -> dict[str, Any]:
        return {
            "index": self.index,
            "line": self.line,
            "prompt": self.prompt,
            "seed": self.seed,
            "output": str(self.output),
            "fingerprint": self.fingerprint,
        }


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """Every video of a batch, notes about them, and the settings that need the most memory."""

    jobs: list[Job]
    notes: list[str]
    largest: GenerationSettings


def plan_batch(
    pipe: StepVideoPipeline,
    lines: Sequence[PromptLine],
    defaults: Choices,
    seeds: Sequence[int],
    template: str,
    finishing: Finishing,
    *,
    truncate_prompt: bool = False,
) -> BatchPlan:
    """Check all lines with all their seeds, without running any.

    defaults: of the command line, for what a line leaves out; seeds: for lines without their own.
    Raises InvalidRequest that names every line at fault, OutputError for an output that cannot be
    written, is another's, or is no output of stepvideo.
    """
    jobs: list[Job] = []
    notes: list[str] = []
    faults: list[str] = []
    largest: GenerationSettings | None = None
    for line in lines:
        for seed in line.seeds or seeds:
            request = cast("Request", {**defaults, **line.request, "seed": seed})
            try:
                settings, said = pipe.settings(**request, truncate_prompt=truncate_prompt)
                output = _output(line, template, len(jobs) + 1, seed)
            except StepVideoError as error:
                faults.append(f"line {line.line}: {error}")
                break  # the same for its other seeds
            notes += [f"line {line.line}: {text}" for text in said]
            size = _pixels(settings)
            if largest is None or size > _pixels(largest):
                largest = settings
            identity = fingerprint(pipe, settings, finishing.as_json())
            state = _state(output, identity)
            if state is not State.present:
                check_output(output, raw_bytes(output, settings), denoise=finishing.denoise_filter)
            job = Job(
                index=len(jobs) + 1,
                line=line.line,
                request=request,
                texts=settings.texts,
                seed=seed,
                output=output,
                fingerprint=identity,
                state=state,
            )
            jobs.append(job)
    if faults:
        raise InvalidRequest(listed(faults))
    _check_distinct(jobs)
    assert largest is not None
    return BatchPlan(jobs=jobs, notes=list(dict.fromkeys(notes)), largest=largest)


def saved_record(output: Path) -> dict[str, Any] | None:
    """The record of a finished output; None if there is none, or the output is damaged."""
    try:
        return read_metadata(output)
    except OutputError:
        return None


def raw_bytes(output: Path, settings: GenerationSettings) -> int | None:
    """What the frames take on the disk, where the format does not compress them."""
    return 3 * _pixels(settings) if output.suffix.lower() == ".safetensors" else None


def _pixels(settings: GenerationSettings) -> int:
    return settings.num_frames * settings.height * settings.width


def _output(line: PromptLine, template: str, index: int, seed: int) -> Path:
    prompt = line.request["prompt"]
    base = fill_template(template, index=index, line=line.line, prompt=prompt, seed=seed)
    if line.output is None:
        return base
    own = fill_template(line.output, index=index, line=line.line, prompt=prompt, seed=seed)
    return base.parent / (own if own.suffix else own.with_name(own.name + base.suffix))


def _state(output: Path, identity: str) -> State:
    """OutputError if something lies there that stepvideo has not made."""
    record = saved_record(output)
    if record is not None and record.get("fingerprint") == identity:
        return State.present
    if output.exists() and record is None and not _has_sidecar(output):
        if not (output.is_dir() and not any(output.iterdir())):
            raise OutputError(
                f"{output} exists and is no output of stepvideo; move it away, or choose other "
                "names with --output"
            )
    return State.latents if waiting_latents(output, identity) else State.todo


def _has_sidecar(output: Path) -> bool:
    """Whether a damaged output can be told to be ours, and so may be replaced."""
    try:
        path = output / FOLDER_RECORD if output.is_dir() else sidecar_path(output)
        return "settings" in read_json(path)
    except CheckpointError:
        return False


def waiting_latents(output: Path, identity: str) -> bool:
    """Whether the final latents of exactly this video wait to be decoded."""
    try:
        _, record = read_latents(latents_path(output))
    except CheckpointError:
        return False
    return bool(record.get("fingerprint") == identity)


def _check_distinct(jobs: Sequence[Job]) -> None:
    seen: dict[Path, Job] = {}
    for job in jobs:
        other = seen.setdefault(job.output.absolute(), job)
        if other is not job:
            raise InvalidRequest(
                f"two videos would be written to {job.output} (line {other.line} with seed "
                f"{other.seed}, line {job.line} with seed {job.seed}): put "
                "{index}, {slug} or {seed} into the name, e.g. --output "
                + json.dumps(f"{job.output.parent}/{{index}}-{{seed}}{job.output.suffix}")
            )
