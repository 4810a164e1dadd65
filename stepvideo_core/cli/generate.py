"""From checked settings and encoded texts to a file: what one run and every video of a batch do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from stepvideo_core.cli.finish import save_then_decode
from stepvideo_core.errors import RunInterrupted
from stepvideo_core.fingerprint import fingerprint
from stepvideo_core.pipeline import StepVideoPipeline
from stepvideo_core.progress import StageLog
from stepvideo_core.record import run_record
from stepvideo_core.request import GenerationSettings
from stepvideo_core.text import TextEmbedding


@dataclass(frozen=True, kw_only=True)
class Finishing:
    """The official finishing of saved videos."""

    crop: bool
    denoise_filter: bool

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def generate_file(
    pipe: StepVideoPipeline,
    settings: GenerationSettings,
    output: Path,
    log: StageLog,
    finishing: Finishing,
    *,
    text: list[TextEmbedding] | None = None,
    initial: Tensor | None = None,
    keep_latents: bool = False,
) -> dict[str, Any]:
    """Denoise and decode one video into `output`; returns its record.

    text: of `encode_texts`, if that is done. initial: noise instead of the seed's. The final
    latents are on disk before decoding starts. Raises RunInterrupted on Ctrl-C.
    """
    try:
        if text is None:
            text = pipe.encode_text(settings, log)
        condition = pipe.encode_image(settings, log)
        final = pipe.sample_latents(settings, text, log, initial, condition)
    except KeyboardInterrupt:
        raise RunInterrupted(f"interrupted during {log.current}; nothing was written") from None
    record = run_record(pipe, settings, log)
    record["finishing"] = finishing.as_json()
    if initial is None:  # given noise is not among what a fingerprint is of
        record["fingerprint"] = fingerprint(pipe, settings, finishing.as_json())
    save_then_decode(
        pipe,
        final,
        output,
        record,
        log,
        fps=settings.fps,
        crop=finishing.crop,
        denoise_filter=finishing.denoise_filter,
        keep_latents=keep_latents,
    )
    return record
