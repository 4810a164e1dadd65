"""The two layouts that a transformer can be written in: official, and per rank of training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from torch import Tensor

from stepvideo_core.checkpoints.configs import transformer_config_json
from stepvideo_core.checkpoints.files import atomic_path, write_json
from stepvideo_core.checkpoints.megatron.rules import divide, piece_shape, rule_of, training_key
from stepvideo_core.checkpoints.megatron.split import POINTER_FILE, RELEASE, ParallelSplit
from stepvideo_core.checkpoints.streams import (
    Entry,
    SafetensorsStream,
    TensorStream,
    TorchFileStream,
)
from stepvideo_core.config import TransformerConfig

MAX_SHARD_BYTES = 10 * 10**9
"""As large as the official shards may be."""

_STEM = "diffusion_pytorch_model"
_CHECKPOINT_VERSION = 3.0
"""Megatron's: from version 3 on it does not reorder fused projections by itself."""

Listing = dict[Path, dict[str, Entry]]
"""What each file will hold, by its path within the target folder and the tensor's name there."""


class Target(Protocol):
    """A layout to write to."""

    @property
    def folder(self) -> Path:
        """The folder that appears when everything is in it."""
        ...

    @property
    def results(self) -> tuple[Path, ...]:
        """What will be new, or with `--force` replaced."""
        ...

    def listing(self, entries: Mapping[str, Entry]) -> Listing:
        """The files that hold these tensors, given by official key."""
        ...

    def open(
        self, path: Path, entries: Mapping[str, Entry]
    ) -> contextlib.AbstractContextManager[TensorStream]:
        """Start one of those files, at `path`."""
        ...

    def pieces(self, key: str, tensor: Tensor) -> Iterator[tuple[Path, str, Tensor]]:
        """(file, name, piece) for a whole tensor in the official packing."""
        ...

    def complete(self, folder: Path, listing: Listing) -> None:
        """Write what belongs beside the weights, into the folder that is not yet in its place."""

    def announce(self) -> None:
        """Point to the folder, which is in its place now."""


class OfficialTarget:
    """`transformer/` of a checkpoint: shards, their index and the config."""

    def __init__(self, root: Path, config: TransformerConfig, max_shard_bytes: int) -> None:
        self.folder = root / "transformer"
        self.results: tuple[Path, ...] = (self.folder,)
        self._config, self._max_shard_bytes = config, max_shard_bytes
        self._file_of: dict[str, Path] = {}

    def listing(self, entries: Mapping[str, Entry]) -> Listing:
        shards: list[dict[str, Entry]] = [{}]
        size = 0
        for key, entry in entries.items():
            if shards[-1] and size + entry.num_bytes > self._max_shard_bytes:
                shards.append({})
                size = 0
            shards[-1][key] = entry
            size += entry.num_bytes
        total = len(shards)
        names = [f"{_STEM}-{number:05}-of-{total:05}.safetensors" for number in range(1, total + 1)]
        if total == 1:
            names = [f"{_STEM}.safetensors"]
        files = {Path(name): shard for name, shard in zip(names, shards, strict=True)}
        self._file_of = {key: path for path, shard in files.items() for key in shard}
        return files

    def open(self, path: Path, entries: Mapping[str, Entry]) -> SafetensorsStream:
        return SafetensorsStream(path, entries)

    def pieces(self, key: str, tensor: Tensor) -> Iterator[tuple[Path, str, Tensor]]:
        yield self._file_of[key], key, tensor

    def complete(self, folder: Path, listing: Listing) -> None:
        write_json(folder / "config.json", transformer_config_json(self._config))
        if len(listing) > 1:
            total = sum(entry.num_bytes for shard in listing.values() for entry in shard.values())
            weight_map = {key: path.name for path, shard in listing.items() for key in shard}
            write_json(
                folder / f"{_STEM}.safetensors.index.json",
                {"metadata": {"total_size": total}, "weight_map": weight_map},
            )

    def announce(self) -> None:
        """The folder's name says what it is."""


class MegatronTarget:
    """`release/` of a training checkpoint, one file per rank and stage, and the pointer to it."""

    def __init__(self, root: Path, config: TransformerConfig, split: ParallelSplit) -> None:
        self.folder = root / RELEASE
        self._pointer = root / POINTER_FILE
        self.results: tuple[Path, ...] = (self.folder, self._pointer)
        self.split = split
        self._num_heads = config.num_attention_heads

    def listing(self, entries: Mapping[str, Entry]) -> Listing:
        split = self.split
        files: Listing = {
            split.file(rank, stage): {}
            for stage in range(split.num_stages)
            for rank in range(split.num_ranks)
        }
        for key, entry in entries.items():
            shape = piece_shape(entry.shape, rule_of(key), split.num_ranks)
            name, stage = self._place(key)
            for rank in range(split.num_ranks):
                files[split.file(rank, stage)][name] = Entry(shape=shape, dtype=entry.dtype)
        return files

    def open(self, path: Path, entries: Mapping[str, Entry]) -> TorchFileStream:
        return TorchFileStream(path, entries, {"checkpoint_version": _CHECKPOINT_VERSION})

    def pieces(self, key: str, tensor: Tensor) -> Iterator[tuple[Path, str, Tensor]]:
        name, stage = self._place(key)
        parts = divide(tensor, rule_of(key), self._num_heads, self.split.num_ranks)
        for rank, part in enumerate(parts):
            yield self.split.file(rank, stage), name, part

    def _place(self, key: str) -> tuple[str, int]:
        stage = self.split.stage_of(key)
        return training_key(key, self.split.first_layers[stage]), stage

    def complete(self, folder: Path, listing: Listing) -> None:
        """The weights are all there is."""

    def announce(self) -> None:
        with atomic_path(self._pointer) as temporary:
            temporary.write_text(RELEASE, encoding="utf-8")
