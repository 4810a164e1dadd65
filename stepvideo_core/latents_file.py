"""Latents on disk: initial noise in, final latents out, with the record of how they were made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stepvideo_core.checkpoints.files import atomic_path
from stepvideo_core.errors import CheckpointError
from stepvideo_core.video.record import COMMENT

TENSOR = "latents"


def read_latents(path: Path) -> tuple[Tensor, dict[str, Any]]:
    """The tensor `latents` [1, F, C, h, w] in float32, and the record it was saved with (or {}).

    Raises CheckpointError if the file is missing, truncated, or holds no such tensor.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            names = list(file.keys())
            if TENSOR not in names:
                raise CheckpointError(
                    f"{path} holds no tensor {TENSOR!r}, only {', '.join(names) or 'nothing'}"
                )
            latents: Tensor = file.get_tensor(TENSOR).float()
            record = json.loads((file.metadata() or {}).get(COMMENT, "{}"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing") from None
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is not a complete safetensors file: {error}") from error
    if not bool(latents.isfinite().all()):
        raise CheckpointError(f"{path}: the latents contain NaN or infinity")
    return latents, record


def write_latents(path: Path, latents: Tensor, record: dict[str, Any]) -> None:
    """Save final latents with their record; OutputError if the file cannot be written."""
    metadata = {COMMENT: json.dumps(record, ensure_ascii=False)}
    with atomic_path(path) as temporary:
        try:
            save_file({TENSOR: latents.contiguous()}, str(temporary), metadata=metadata)
        except SafetensorError as error:  # how safetensors reports a full disk
            raise OSError(str(error)) from error
