"""Weight files that are written tensor by tensor, so that none is held in memory as a whole.

All shapes are known beforehand: the file is laid out first, then every tensor goes to its place, in
any order.
"""

from __future__ import annotations

import contextlib
import json
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from stepvideo_core.errors import NotEnoughMemory

_SAFETENSORS_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
}
_LOCAL_HEADER_SIZE, _LOCAL_LENGTHS = 30, 26


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A tensor that will be written."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def num_bytes(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize


class TensorStream(Protocol):
    """A file that is filled tensor by tensor."""

    def write(self, key: str, tensor: Tensor) -> None:
        """Write one of the announced tensors. Raises OSError if the disk is full."""
        ...


class _PlacedTensors(contextlib.AbstractContextManager["_PlacedTensors"]):
    """A file whose tensors have their places; leaving the block checks that all are filled."""

    def __init__(self, path: Path, entries: Mapping[str, Entry], places: Mapping[str, int]) -> None:
        self._path, self._entries, self._places = path, entries, places
        self._missing = set(entries)
        self._file = path.open("r+b")

    def write(self, key: str, tensor: Tensor) -> None:
        entry = self._entries[key]
        if (tuple(tensor.shape), tensor.dtype) != (entry.shape, entry.dtype):
            raise ValueError(
                f"{key} was announced as {entry.dtype} {list(entry.shape)}, but is "
                f"{tensor.dtype} {list(tensor.shape)}"
            )
        self._file.seek(self._places[key])
        self._file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        self._missing.discard(key)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._file.close()
        if error is None and self._missing:
            raise ValueError(f"{self._path}: {sorted(self._missing)} were not written")


class SafetensorsStream(_PlacedTensors):
    """A safetensors file; use it in a `with` block."""

    def __init__(self, path: Path, entries: Mapping[str, Entry]) -> None:
        """Lays the file out. Raises OSError if it cannot be created."""
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        places, end = {}, 0
        for key, entry in entries.items():
            places[key], start, end = end, end, end + entry.num_bytes
            header[key] = {
                "dtype": _SAFETENSORS_DTYPES[entry.dtype],
                "shape": list(entry.shape),
                "data_offsets": [start, end],
            }
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with path.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.truncate(8 + len(text) + end)
        first = 8 + len(text)
        super().__init__(path, entries, {key: first + place for key, place in places.items()})


class TorchFileStream(_PlacedTensors):
    """A torch file `{"model": {key: tensor}, ...}`; use it in a `with` block.

    The archive's checksums stay empty, which torch allows and does not read; `unzip` complains.
    """

    def __init__(self, path: Path, entries: Mapping[str, Entry], others: Mapping[str, Any]) -> None:
        """others: small values beside `model`. Raises OSError if the file cannot be created,
        NotEnoughMemory if the system does not even reserve address space of its size."""
        try:
            # Never touched, so these take address space but no memory.
            model = {key: torch.empty(e.shape, dtype=e.dtype) for key, e in entries.items()}
        except (RuntimeError, MemoryError) as error:
            size = sum(entry.num_bytes for entry in entries.values())
            raise NotEnoughMemory(
                f"{path} cannot be laid out: the system grants no address space of "
                f"{size / 1e9:.1f} GB; raise `ulimit -v`, or split into more ranks or stages"
            ) from error
        with torch.serialization.skip_data():
            torch.save({"model": model, **others}, path)
        super().__init__(path, entries, _record_offsets(path, list(entries)))


def _record_offsets(path: Path, keys: list[str]) -> dict[str, int]:
    """Where the bytes of each tensor of a torch file begin; `keys` in the order of saving."""
    with zipfile.ZipFile(path) as archive:
        records = {info.filename.split("/", 1)[1]: info for info in archive.infolist()}
    offsets = {}
    with path.open("rb") as file:
        for number, key in enumerate(keys):
            start = records[f"data/{number}"].header_offset
            file.seek(start + _LOCAL_LENGTHS)
            # The archive's directory does not tell the padding, which stands in the local header.
            name_size, padding = struct.unpack("<HH", file.read(4))
            offsets[key] = start + _LOCAL_HEADER_SIZE + name_size + padding
    return offsets
