"""One rank's file of a training checkpoint, read without running what it pickled.

Beside the weights such a file may hold the optimiser and the training's own records, whose classes
are not installed here. Names of known packages are replaced by an object that ignores everything;
any other name is refused before anything is read.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stepvideo_core.checkpoints.sources import TensorInfo, load_torch_file
from stepvideo_core.errors import CheckpointError

# The training's arguments and what they hold; the state of numpy's generator; the extra state of
# fused layers.
_RECORDS = re.compile(
    r"argparse\.Namespace|types\.SimpleNamespace|functools\.partial|pathlib\.\w+|_io\.BytesIO"
    r"|(megatron|mindspeed\w*|numpy|torch\w*)\..+"
)
_EXTRA_STATE = "_extra_state"


class _Ignored:
    """Stands for an object of a class that is not needed; takes everything and keeps nothing."""

    def __new__(cls, *args: object, **kwargs: object) -> _Ignored:
        return super().__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class RankFile:
    """The weights of one rank, by their names in training; memory-mapped."""

    def __init__(self, path: Path) -> None:
        """Raises CheckpointError if the file is missing, broken, would run code when read, or has
        no weights of one pipeline stage."""
        if not path.is_file():
            raise CheckpointError(f"{path} is missing")
        content = _read(path)
        if isinstance(content, dict) and "model0" in content:
            raise CheckpointError(
                f"{path} has several virtual pipeline stages, which cannot be converted; save the "
                "checkpoint without virtual pipeline parallelism"
            )
        model = content.get("model") if isinstance(content, dict) else None
        if not isinstance(model, dict):
            raise CheckpointError(f"{path} holds no weights: it has no dictionary named 'model'")
        self._tensors: dict[str, Tensor] = {}
        for key, value in model.items():
            if str(key).endswith(_EXTRA_STATE):
                continue
            if not isinstance(value, Tensor):
                raise CheckpointError(f"{path}: {key!r} is no tensor but a {type(value).__name__}")
            self._tensors[key] = value
        self._infos = {
            key: TensorInfo(tuple(tensor.shape), tensor.dtype, path)
            for key, tensor in self._tensors.items()
        }

    @property
    def infos(self) -> Mapping[str, TensorInfo]:
        return self._infos

    def read(self, key: str) -> Tensor:
        return self._tensors[key]


def _read(path: Path) -> Any:
    names = _foreign_names(path)
    refused = [name for name in names if not _RECORDS.fullmatch(name)]
    if refused:
        raise CheckpointError(
            f"{path} is refused: reading it would call {', '.join(refused[:3])}, which no "
            "checkpoint needs and which could run any code; save the weights alone, as tensors"
        )
    with torch.serialization.safe_globals([(_Ignored, name) for name in names]):
        return load_torch_file(path)


def _foreign_names(path: Path) -> list[str]:
    """Names that torch's weights-only reader does not know; none of the old format, which it
    refuses by itself."""
    if not zipfile.is_zipfile(path):
        return []
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except (RuntimeError, pickle.UnpicklingError, IndexError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not a readable torch file ({type(error).__name__}: {error})"
        ) from error
