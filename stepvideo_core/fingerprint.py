"""What identifies a finished video, so that a batch recognises outputs that it need not repeat."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from stepvideo_core.checkpoints.layout import COMPONENTS, CheckpointLayout

if TYPE_CHECKING:
    from stepvideo_core.pipeline import StepVideoPipeline
    from stepvideo_core.request import GenerationSettings


def fingerprint(
    pipe: StepVideoPipeline, settings: GenerationSettings, finishing: dict[str, Any]
) -> str:
    """SHA-256 of everything that a video follows from, except for rounding.

    That is the settings, the image's pixels, the model's files, dtype, numerics and finishing; not
    the device, the backends or the versions, so that a batch may go on elsewhere.
    """
    values = settings.as_json()
    if settings.image is not None:
        values["image"] = settings.image.sha256
    said = {
        "settings": values,
        "weights": _weights(pipe.layout),
        "dtype": str(pipe.dtype),
        "numerics": pipe.numerics,
        "finishing": finishing,
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _weights(layout: CheckpointLayout) -> list[tuple[str, int, int]]:
    """Name, size and time of change of every weight file: reading 100 GB would take too long."""
    files = [file for component in COMPONENTS for file in layout.files(component)]
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
