"""What identifies a finished video, so that a batch recognises outputs that it need not repeat."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepvideo_core.checkpoints.layout import COMPONENTS, CheckpointLayout

if TYPE_CHECKING:
    from stepvideo_core.pipeline import StepVideoPipeline
    from stepvideo_core.request import GenerationSettings

_PIECE = 4 * 2**20


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
        "weights": weights_digest(pipe.layout),
        "dtype": str(pipe.dtype),
        "numerics": pipe.numerics,
        "finishing": finishing,
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def weights_digest(layout: CheckpointLayout) -> str:
    """Which weights these are: SHA-256, 16 hexadecimal digits, over files and sampling defaults.

    Of each file the name, the size, and the first and the last 4 MiB are read, so that 80 GB take
    no longer than a tiny model: the header with all names and shapes is among them, and trained
    weights differ everywhere. A copy has the same digest. Raises CheckpointError if a component is
    missing.
    """
    digest = hashlib.sha256()
    files = [path for component in COMPONENTS for path in layout.files(component)]
    if layout.settings_path.is_file():
        files.append(layout.settings_path)
    for path in files:
        status = path.stat()
        digest.update(f"{path.name}\0{status.st_size}\0".encode())
        digest.update(_ends_digest(path, status.st_size, status.st_mtime_ns))
    return digest.hexdigest()[:16]


@lru_cache(maxsize=256)
def _ends_digest(path: Path, size: int, changed: int) -> bytes:
    """SHA-256 of a file's ends, read once for a batch of many videos."""
    with path.open("rb") as file:
        first = file.read(_PIECE)
        file.seek(max(len(first), size - _PIECE))
        return hashlib.sha256(first + file.read(_PIECE)).digest()
