"""Writing tensor files, with errors that a user can act on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from stepvideo_core.errors import OutputError


def write_safetensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors, contiguous and on the CPU, to one safetensors file.

    Raises OutputError if the folder is missing, may not be written, or the disk is full.
    """
    try:
        save_file(dict(tensors), path, metadata={"format": "pt"})
    except (SafetensorError, OSError) as error:
        raise OutputError(f"{path} cannot be written: {error}") from error


def write_torch_file(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a `.bin` that torch's weights-only reader can map. Raises OutputError likewise."""
    try:
        torch.save(dict(tensors), path)
    except (RuntimeError, OSError) as error:
        raise OutputError(f"{path} cannot be written: {error}") from error
