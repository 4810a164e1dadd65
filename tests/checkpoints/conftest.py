"""What the checkpoint tests share: writing shards, seeing through a memory map, damaging JSON."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file
from torch import Tensor


@pytest.fixture(scope="session")
def write_shards() -> Callable[[Path, str, Sequence[Mapping[str, Tensor]]], list[Path]]:
    """Write tensors as the official shards with their index; returns the shards."""

    def write(folder: Path, stem: str, shards: Sequence[Mapping[str, Tensor]]) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        weight_map: dict[str, str] = {}
        paths = []
        for number, tensors in enumerate(shards, start=1):
            path = folder / f"{stem}-{number:05}-of-{len(shards):05}.safetensors"
            save_file(dict(tensors), path)
            weight_map.update(dict.fromkeys(tensors, path.name))
            paths.append(path)
        index = {"metadata": {}, "weight_map": weight_map}
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index))
        return paths

    return write


@pytest.fixture(scope="session")
def mapped_file() -> Callable[[Tensor], str]:
    """The file that a tensor's memory is a map of, by the kernel's own table; "" if of none."""
    if sys.platform != "linux":
        pytest.skip("only Linux lists the memory maps of a process in /proc")

    def find(tensor: Tensor) -> str:
        address = tensor.data_ptr()
        for line in Path("/proc/self/maps").read_text().splitlines():
            span, _, _, _, _, *name = line.split(maxsplit=5)
            first, last = (int(part, 16) for part in span.split("-"))
            if first <= address < last:
                return name[0].strip() if name else ""
        raise AssertionError("the tensor lies in no mapped memory")

    return find


@pytest.fixture
def tiny_copy(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint that a test may damage."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "model"))


@pytest.fixture(scope="session")
def edit_json() -> Callable[..., None]:
    """Change fields of a JSON file; None removes one."""

    def edit(path: Path, **changes: Any) -> None:
        values = json.loads(path.read_text(encoding="utf-8"))
        values.update(changes)
        kept = {key: value for key, value in values.items() if value is not None}
        path.write_text(json.dumps(kept), encoding="utf-8")

    return edit
