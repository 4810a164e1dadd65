"""Where weights come from: one or several safetensors files, or a weights-only torch file.

Tensors are read lazily from the memory map, so that an inventory costs no memory and a tensor that
already has the wanted dtype costs none either until it is used.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from stepvideo_core.checkpoints.files import read_json
from stepvideo_core.errors import CheckpointError, NotEnoughMemory

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class TensorInfo:
    """What a file says about one tensor, without reading it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    file: Path

    @property
    def num_bytes(self) -> int:
        return self.shape_numel * self.dtype.itemsize

    @property
    def shape_numel(self) -> int:
        return torch.Size(self.shape).numel()


class WeightSource(Protocol):
    """A set of named tensors on disk."""

    @property
    def infos(self) -> Mapping[str, TensorInfo]:
        """Every tensor's description, by its key in the files."""
        ...

    def read(self, key: str) -> Tensor:
        """One tensor on the CPU, memory-mapped where the format allows."""
        ...


class SafetensorsSource:
    """The tensors of some safetensors files."""

    def __init__(self, files: list[Path]) -> None:
        """Raises CheckpointError for a missing, truncated or foreign file, or a doubled key;
        NotEnoughMemory if the system refuses to map a file of this size."""
        self._files = {path: _open(path) for path in files}
        self._infos: dict[str, TensorInfo] = {}
        for path, handle in self._files.items():
            for key in handle.keys():
                if key in self._infos:
                    raise CheckpointError(
                        f"tensor {key!r} is in both {self._infos[key].file} and {path}"
                    )
                view = handle.get_slice(key)
                dtype = _DTYPES.get(view.get_dtype())
                if dtype is None:
                    raise CheckpointError(
                        f"tensor {key!r} in {path} has dtype {view.get_dtype()}, which is not "
                        "supported"
                    )
                self._infos[key] = TensorInfo(tuple(view.get_shape()), dtype, path)

    @property
    def infos(self) -> Mapping[str, TensorInfo]:
        return self._infos

    def read(self, key: str) -> Tensor:
        tensor: Tensor = self._files[self._infos[key].file].get_tensor(key)
        return tensor


def _open(path: Path):  # type: ignore[no-untyped-def]
    try:
        return safe_open(path, framework="pt", device="cpu")
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing") from None
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is not a complete safetensors file ({error}); download it again"
        ) from error
    except MemoryError as error:
        # Linux counts a writable private map in full, though its pages stay on disk.
        raise NotEnoughMemory(
            f"{path} cannot be mapped: the system grants no address space of "
            f"{path.stat().st_size / 1e9:.1f} GB; raise `ulimit -v` or add swap space"
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def load_torch_file(path: Path) -> Any:
    """What a torch file holds, by torch's weights-only reader; memory-mapped where possible.

    Raises CheckpointError if the file is missing or broken, or would run code when read.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is missing")
    try:
        # Only the zip format (torch >= 1.6) can be mapped.
        return torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is truncated, or holds objects other than tensors, which would run code "
            "when read and is refused"
        ) from error
    # A damaged file makes torch's reader fail in a dozen ways, KeyError and AssertionError
    # among them; whatever it is, the file cannot be read.
    except Exception as error:
        raise CheckpointError(
            f"{path} is not a readable torch file ({type(error).__name__}: {error}); download "
            "it again"
        ) from error


class TorchFileSource:
    """The tensors of a `.bin` file, unpickled with torch's weights-only reader."""

    def __init__(self, path: Path) -> None:
        """Raises CheckpointError if the file is missing, broken, or holds more than tensors."""
        state = load_torch_file(path)
        if not isinstance(state, dict) or not all(
            isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
        ):
            raise CheckpointError(f"{path} does not hold a dictionary of named tensors")
        self._state: dict[str, Tensor] = state
        self._infos = {
            key: TensorInfo(tuple(tensor.shape), tensor.dtype, path)
            for key, tensor in state.items()
        }

    @property
    def infos(self) -> Mapping[str, TensorInfo]:
        return self._infos

    def read(self, key: str) -> Tensor:
        return self._state[key]


def scan_safetensors(folder: Path, stem: str) -> tuple[list[Path], str | None]:
    """The files of `stem.safetensors`, or the shards that `stem.safetensors.index.json` lists.

    Returns those that are there, and what is wrong with them as a set, if anything.
    """
    index = folder / f"{stem}.safetensors.index.json"
    single = folder / f"{stem}.safetensors"
    if not index.is_file():
        if single.is_file():
            return [single], None
        shards = sorted(folder.glob(f"{stem}-*.safetensors"))
        if shards:
            return shards, (
                f"{index} is missing, though {len(shards)} of its shards exist; download it again"
            )
        return [], f"{single} is missing, and so is {index.name}"
    try:
        names = _shard_names(index)
    except CheckpointError as error:
        return sorted(folder.glob(f"{stem}-*.safetensors")), str(error)
    missing = [name for name in names if not (folder / name).is_file()]
    present = [folder / name for name in names if name not in missing]
    if not missing:
        return present, None
    return present, (
        f"{len(missing)} of {len(names)} shards are missing in {folder}: "
        f"{', '.join(missing[:4])}{', ...' if len(missing) > 4 else ''}; download them"
    )


def _shard_names(index: Path) -> list[str]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map; download it again")
    for name in weight_map.values():
        # Shards lie beside their index; a path would let a downloaded file name any other.
        if not isinstance(name, str) or not name or Path(name).name != name:
            raise CheckpointError(f"{index} names {name!r}, which is no file name beside it")
    return sorted(set(weight_map.values()))
