"""Many videos from one model, each part of it loaded once; what is finished is on disk at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stepvideo_core.errors import InvalidRequest
from stepvideo_core.latents_file import read_latents, write_latents
from stepvideo_core.pipeline import StepVideoPipeline
from stepvideo_core.progress import Silent, StageLog, StageReport
from stepvideo_core.record import run_record
from stepvideo_core.request import GenerationSettings
from stepvideo_core.video import open_writer
from stepvideo_eval.prompts import Prompt

LATENTS, VIDEOS = "latents", "videos"
"""Folders of an evaluation."""
_NAME_LETTERS = 48


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One video to be made. number: from 1; group: number of its prompt, shared by its seeds."""

    number: int
    group: int
    prompt: Prompt
    settings: GenerationSettings

    @property
    def name(self) -> str:
        """0007-a-red-circle-moves-right, safe as a file name anywhere."""
        letters = (letter if letter.isalnum() else " " for letter in self.prompt.text)
        words = "-".join("".join(letters).split())[:_NAME_LETTERS].rstrip("-")
        return f"{self.number:04d}-{words or 'unconditional'}"


class Generation:
    """Samples of one model in one folder: `latents/NAME.safetensors` and `videos/NAME.mp4`.

    Latents that an earlier, interrupted call left there are not computed again. weights: the digest
    of the model's, by which they are recognised.
    """

    def __init__(
        self,
        pipe: StepVideoPipeline,
        samples: Sequence[Sample],
        folder: Path,
        weights: str,
    ) -> None:
        self.pipe, self.samples, self.folder = pipe, samples, folder
        self._weights = weights

    def video_path(self, sample: Sample) -> Path:
        return self.folder / VIDEOS / f"{sample.name}.mp4"

    def latents_path(self, sample: Sample) -> Path:
        return self.folder / LATENTS / f"{sample.name}.safetensors"

    def missing(self) -> list[Sample]:
        """The samples whose latents are not there yet.

        Raises InvalidRequest if latents of something else are in their place.
        """
        left = []
        for sample in self.samples:
            path = self.latents_path(sample)
            if not path.exists():
                left.append(sample)
            elif not self._is_ours(read_latents(path)[1], sample):
                raise InvalidRequest(
                    f"{path} was made with another model or other settings: name a new --output"
                )
        return left

    def sample_all(self, log: StageLog) -> None:
        """Sample what is missing; every sample's latents are written as soon as they are final."""
        left = self.missing()
        if not left:
            return
        pipe = self.pipe
        texts = list(dict.fromkeys(text for sample in left for text in sample.settings.texts))
        # On the host: the embeddings of a thousand prompts would take gigabytes of the device.
        host = torch.device("cpu")
        encoded = pipe.encode_texts(texts, log)
        embeddings = {text: each.to(host) for text, each in zip(texts, encoded, strict=True)}
        steps = sum(sample.settings.num_steps for sample in left)
        with (
            pipe.residency.borrowed("transformer"),
            log.stage("sample", steps, "steps") as advance,
        ):
            for sample in left:
                text = [embeddings[each].to(pipe.device) for each in sample.settings.texts]
                watched = StageLog(pipe.device, _Forwarded("denoise", advance))
                latents = pipe.sample_latents(sample.settings, text, watched)
                write_latents(self.latents_path(sample), latents, self._record(sample))

    def decode_all(self, log: StageLog) -> Iterator[tuple[Sample, Tensor]]:
        """Each sample with its frames, uint8 [T, H, W, 3] before crop and filter.

        The mp4 is complete when its frames are handed out.
        """
        pipe = self.pipe
        frames = sum(sample.settings.num_frames for sample in self.samples)
        with pipe.residency.borrowed("vae"), log.stage("decode", frames, "frames") as advance:
            for sample in self.samples:
                latents, record = read_latents(self.latents_path(sample))
                watched = StageLog(pipe.device, _Forwarded("decode", advance))
                video = torch.cat(list(pipe.decode_frames(latents, watched)))
                finishing = record["finishing"]
                with open_writer(
                    self.video_path(sample),
                    height=video.shape[1],
                    width=video.shape[2],
                    fps=sample.settings.fps,
                    crop=finishing["crop"],
                    denoise=finishing["denoise_filter"],
                    metadata=record,
                    latents=None,
                ) as writer:
                    writer.write(video)
                yield sample, video

    def _record(self, sample: Sample) -> dict[str, Any]:
        return run_record(self.pipe, sample.settings) | {"weights": self._weights}

    def _is_ours(self, found: dict[str, Any], sample: Sample) -> bool:
        wanted = {
            "settings": sample.settings.as_json(),
            "weights": self._weights,
            "dtype": str(self.pipe.dtype).removeprefix("torch."),
            "numerics": self.pipe.numerics,
        }
        return all(found.get(key) == value for key, value in wanted.items())


class _Forwarded(Silent):
    """Hands on the progress of one stage, so that the bar of all videos moves with each step."""

    def __init__(self, stage: str, advance: Any) -> None:
        self._stage, self._advance, self._listening = stage, advance, False

    def begin(self, name: str, total: int | None, unit: str) -> None:
        self._listening = name == self._stage

    def advance(self, amount: int) -> None:
        if self._listening:
            self._advance(amount)

    def end(self, report: StageReport) -> None:
        self._listening = False
