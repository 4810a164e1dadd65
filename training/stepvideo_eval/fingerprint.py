"""Which weights were judged: a short digest of a checkpoint's files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from stepvideo_core.checkpoints.layout import COMPONENTS, CheckpointLayout

_PIECE = 4 * 2**20


def fingerprint(layout: CheckpointLayout) -> str:
    """SHA-256, 16 hexadecimal digits, over the weight files and the sampling defaults.

    Of each file the name, the size, and the first and the last 4 MiB are read, so that 80 GB take
    no longer than a tiny model: the header with all names and shapes is among them, and trained
    weights differ everywhere. Raises CheckpointError if a component is missing.
    """
    digest = hashlib.sha256()
    files = [path for component in COMPONENTS for path in layout.files(component)]
    if layout.settings_path.is_file():
        files.append(layout.settings_path)
    for path in files:
        digest.update(
            f"{path.relative_to(layout.root).as_posix()}\0{path.stat().st_size}\0".encode()
        )
        digest.update(_ends(path))
    return digest.hexdigest()[:16]


def _ends(path: Path) -> bytes:
    with path.open("rb") as file:
        first = file.read(_PIECE)
        file.seek(max(len(first), path.stat().st_size - _PIECE))
        return first + file.read(_PIECE)
