"""Many videos in one go: everything is checked first, and the text encoders are loaded once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stepvideo_core.config import CLIP_MAX_TOKENS, LLM_MAX_TOKENS
from stepvideo_core.errors import InvalidRequest, StepVideoError
from stepvideo_core.progress import Observer, StageLog
from stepvideo_core.prompts import Request, listed
from stepvideo_core.result import VideoResult
from stepvideo_core.text import TextEmbedding

if TYPE_CHECKING:
    from stepvideo_core.pipeline import StepVideoPipeline

TEXT_BYTES = 2**30
"""Embeddings that wait for their turn; beyond it, the encoders are loaded once more. 260 texts of
the official model."""

VIDEO_ERRORS = (StepVideoError, RuntimeError, MemoryError, OSError)
"""What may go wrong with one video and leave the next one possible."""


@dataclass(frozen=True)
class FailedVideo:
    """A request of a batch that came to nothing, and why."""

    request: Request
    error: Exception


def run_batch(
    pipe: StepVideoPipeline,
    requests: Sequence[Request],
    *,
    memory_limit: str | None,
    truncate_prompt: bool,
    observer: Observer | None,
) -> Iterator[VideoResult | FailedVideo]:
    """See `StepVideoPipeline.batch`. The checks run at once, the rest as results are taken."""
    texts: list[list[str]] = []
    faults: list[str] = []
    for number, request in enumerate(requests, start=1):
        try:
            settings, _ = pipe.settings(**request, truncate_prompt=truncate_prompt)
            pipe.check_memory(settings, memory_limit)
            # The settings are made again when it is their turn: an image is not kept until then.
            texts.append(settings.texts)
        except StepVideoError as error:
            faults.append(f"request {number}: {error}")
    if faults:
        raise InvalidRequest(listed(faults))
    return _videos(pipe, requests, texts, truncate_prompt, observer)


def _videos(
    pipe: StepVideoPipeline,
    requests: Sequence[Request],
    texts: Sequence[Sequence[str]],
    truncate_prompt: bool,
    observer: Observer | None,
) -> Iterator[VideoResult | FailedVideo]:
    encoded = encode_in_groups(pipe, texts, StageLog(pipe.device, observer))
    for request, embeddings in zip(requests, encoded, strict=True):
        try:
            settings, notes = pipe.settings(**request, truncate_prompt=truncate_prompt)
            log = StageLog(pipe.device, observer)
            result: VideoResult | FailedVideo = pipe.finish(settings, notes, embeddings, log)
        except VIDEO_ERRORS as error:
            result = FailedVideo(request, error)
        yield result


def encode_in_groups(
    pipe: StepVideoPipeline, texts: Sequence[Sequence[str]], log: StageLog
) -> Iterator[list[TextEmbedding]]:
    """The embeddings of each request's texts, in order, on the CPU.

    texts: one or two per request. Equal texts are encoded once, and so many together as
    `TEXT_BYTES` hold, with the encoders loaded once for them all.
    """
    llm, clip = pipe.config.step_llm, pipe.config.clip
    width = LLM_MAX_TOKENS * llm.hidden_size + CLIP_MAX_TOKENS * clip.hidden_size
    limit = max(TEXT_BYTES // (width * pipe.dtype.itemsize), 2)
    start = 0
    while start < len(texts):
        unique: dict[str, None] = {}
        stop = start
        while stop < len(texts) and len(unique | dict.fromkeys(texts[stop])) <= limit:
            unique |= dict.fromkeys(texts[stop])
            stop += 1
        embeddings = dict(zip(unique, pipe.encode_texts(list(unique), log), strict=True))
        on_cpu = {text: embedding.to("cpu") for text, embedding in embeddings.items()}
        del embeddings
        for wanted in texts[start:stop]:
            yield [on_cpu[text] for text in wanted]
        start = stop
