"""The end of a run: latents to disk first, then frames into the output file."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from torch import Tensor

from stepvideo_core.errors import RunInterrupted, StepVideoError
from stepvideo_core.latents_file import write_latents
from stepvideo_core.pipeline import StepVideoPipeline
from stepvideo_core.progress import StageLog
from stepvideo_core.record import measurements
from stepvideo_core.video import open_writer, write_sidecar


def latents_path(output: Path) -> Path:
    """Where the final latents of a run lie until its video is complete."""
    return output.with_name(f"{output.stem or output.name}.latents.safetensors")


def save_then_decode(
    pipe: StepVideoPipeline,
    latents: Tensor,
    output: Path,
    record: dict[str, Any],
    log: StageLog,
    *,
    fps: int,
    crop: bool,
    denoise_filter: bool,
    keep_latents: bool = False,
) -> None:
    """Decode final latents into `output`, with the latents on disk for as long as that may fail.

    `record` receives the timings of all stages and is written beside the output. If decoding
    fails or is interrupted, the error says how to resume.
    """
    rescue = latents_path(output)
    write_latents(rescue, latents, record)
    resume = f"stepvideo decode {shlex.quote(str(rescue))} --output {shlex.quote(str(output))}"
    try:
        decode_to_file(
            pipe,
            latents,
            output,
            record,
            log,
            fps=fps,
            crop=crop,
            denoise_filter=denoise_filter,
        )
    except KeyboardInterrupt:
        raise RunInterrupted(
            f"interrupted while decoding; the final latents are kept, resume with: {resume}"
        ) from None
    except StepVideoError as error:
        raise type(error)(f"{error}. The final latents are kept, resume with: {resume}") from error
    except Exception as error:
        raise RuntimeError(
            f"decoding failed; the final latents are kept, resume with: {resume}"
        ) from error
    if not keep_latents:
        rescue.unlink(missing_ok=True)


def decode_to_file(
    pipe: StepVideoPipeline,
    latents: Tensor,
    output: Path,
    record: dict[str, Any],
    log: StageLog,
    *,
    fps: int,
    crop: bool,
    denoise_filter: bool,
) -> None:
    """Stream decoded frames into the writer; the file appears only when it is complete."""
    factor = pipe.config.vae.spatial_factor
    with open_writer(
        output,
        height=latents.shape[3] * factor,
        width=latents.shape[4] * factor,
        fps=fps,
        crop=crop,
        denoise=denoise_filter,
        metadata=dict(record),
        latents=latents,
    ) as writer:
        for frames in pipe.decode_frames(latents, log):
            writer.write(frames)
    # What decoding cost, and how far its shadow was off, is known only now.
    record |= measurements(pipe, log)
    write_sidecar(output, record)
