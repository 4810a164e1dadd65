"""The state of a training on disk: one safetensors file per saved step, checked when it is read.

A file appears under its name only when complete, and carries a digest of its tensors. A damaged
one is passed over for the one before.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stepvideo_core.checkpoints.files import atomic_path
from stepvideo_core.errors import CheckpointError

_FORMAT = 1
_NAME = re.compile(r"step-(\d{8})\.safetensors")


@dataclass(frozen=True)
class Snapshot:
    """A state: its step, its tensors by name, and what describes it."""

    step: int
    tensors: dict[str, Tensor]
    notes: dict[str, Any]


def save_snapshot(folder: Path, snapshot: Snapshot, *, keep: int) -> Path:
    """Write `step-XXXXXXXX.safetensors` and delete all but the last `keep`.

    Raises OutputError if the folder cannot be written or the disk is full.
    """
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in snapshot.tensors.items()
    }
    head = {
        "format": _FORMAT,
        "step": snapshot.step,
        "digest": _digest(tensors),
        "notes": snapshot.notes,
    }
    path = folder / f"step-{snapshot.step:08d}.safetensors"
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"training": json.dumps(head, sort_keys=True)})
    for old in snapshot_files(folder)[max(keep, 1) :]:
        old.unlink(missing_ok=True)
    return path


def load_snapshot(folder: Path, report: Callable[[str], None]) -> Snapshot | None:
    """The last intact state of a run, or None if nothing was saved yet.

    report: told of each damaged file that was passed over. Raises CheckpointError if files are
    there but none is intact.
    """
    found = snapshot_files(folder)
    for path in found:
        try:
            return read_snapshot(path)
        except CheckpointError as error:
            report(f"{error}; going on from the checkpoint before it")
    if found:
        raise CheckpointError(
            f"no checkpoint in {folder} is intact: delete them to train from the start"
        )
    return None


def read_snapshot(path: Path) -> Snapshot:
    """One saved state. Raises CheckpointError if the file is damaged or of another format."""
    try:
        with safe_open(path, framework="pt") as file:
            head = json.loads((file.metadata() or {}).get("training", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    if head.get("format") != _FORMAT:
        raise CheckpointError(f"{path} has format {head.get('format')!r}, not {_FORMAT}")
    if head["digest"] != _digest(tensors):
        raise CheckpointError(f"{path} is damaged: its tensors do not match their digest")
    return Snapshot(head["step"], tensors, head["notes"])


def snapshot_files(folder: Path) -> list[Path]:
    """The saved states of a run, newest first."""
    if not folder.is_dir():
        return []
    return sorted((p for p in folder.iterdir() if _NAME.fullmatch(p.name)), reverse=True)


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
