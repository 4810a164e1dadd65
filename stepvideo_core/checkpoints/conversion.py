"""Converting the transformer between the official layout and training's, tensor by tensor.

Whatever the direction, a tensor is read whole in the official packing, checked against the model,
and written where the target wants it. At any time memory holds a few copies of one tensor (the
largest of the 30B model has 453 MB in bfloat16) and at most `MAX_MAPPED_BYTES` of mapped files.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stepvideo_core.checkpoints.configs import read_transformer_config
from stepvideo_core.checkpoints.files import atomic_folder
from stepvideo_core.checkpoints.inventory import model_shapes
from stepvideo_core.checkpoints.load import compare, complaints
from stepvideo_core.checkpoints.megatron.source import MegatronSource
from stepvideo_core.checkpoints.megatron.split import ParallelSplit
from stepvideo_core.checkpoints.renewed import RenewedSource
from stepvideo_core.checkpoints.sources import SafetensorsSource, WeightSource, scan_safetensors
from stepvideo_core.checkpoints.streams import Entry
from stepvideo_core.checkpoints.targets import (
    MAX_SHARD_BYTES,
    Listing,
    MegatronTarget,
    OfficialTarget,
    Target,
)
from stepvideo_core.config import TransformerConfig
from stepvideo_core.errors import CheckpointError, OutputError
from stepvideo_core.memory.units import format_bytes

MAX_MAPPED_BYTES = 2**30

_MOTION_SCORE = "adaln_single.emb.motion_score_embedder."


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """One conversion, checked and ready to run; nothing has been written.

    notes: what the user should know about the source.
    """

    source: WeightSource
    config: TransformerConfig
    target: Target
    dtype: torch.dtype | None
    notes: tuple[str, ...] = ()

    @property
    def entries(self) -> dict[str, Entry]:
        """Every tensor as it will be written, whole, by official key."""
        return {
            key: Entry(shape=info.shape, dtype=self.dtype or info.dtype)
            for key, info in self.source.infos.items()
        }

    @property
    def listing(self) -> Listing:
        return self.target.listing(self.entries)

    @property
    def num_bytes(self) -> int:
        """Size of all files, but for their headers."""
        return sum(e.num_bytes for file in self.listing.values() for e in file.values())

    def as_json(self) -> dict[str, Any]:
        """Files and tensors, as `--dry-run --json` prints them."""
        return {
            "output": str(self.target.folder),
            "bytes": self.num_bytes,
            "files": [
                {
                    "path": path.as_posix(),
                    "tensors": [
                        {
                            "name": name,
                            "shape": list(entry.shape),
                            "dtype": str(entry.dtype).removeprefix("torch."),
                        }
                        for name, entry in entries.items()
                    ],
                }
                for path, entries in self.listing.items()
            ],
            "notes": list(self.notes),
        }

    def check_output(self, *, force: bool) -> None:
        """OutputError if the target folder is in use or its disk too small."""
        folder = self.target.folder
        used = [path for path in self.target.results if _in_use(path)]
        if used and not force:
            raise OutputError(
                f"{used[0]} is there already; name another output, or replace it with --force"
            )
        above = next(path for path in folder.absolute().parents if os.path.isdir(path))
        free = shutil.disk_usage(above).free
        if free < self.num_bytes:
            raise OutputError(
                f"{folder} will need {format_bytes(self.num_bytes)}, but its disk has "
                f"{format_bytes(free)} free; make room or name an output on another disk"
            )

    def run(self, *, force: bool = False, on_bytes: Callable[[int], None] | None = None) -> None:
        """Write everything; the folder appears when it is complete.

        force: replace what is there. on_bytes: called with the size of each tensor that was read.
        Raises OutputError, leaving what was there untouched, if the output cannot be written.
        """
        self.check_output(force=force)
        listing = self.listing
        with atomic_folder(self.target.folder, replace=force) as folder:
            with contextlib.ExitStack() as stack:
                streams = {}
                for path, entries in listing.items():
                    (folder / path).parent.mkdir(parents=True, exist_ok=True)
                    streams[path] = stack.enter_context(self.target.open(folder / path, entries))
                for key, info in self.source.infos.items():
                    tensor = self.source.read(key).to(self.dtype or info.dtype)
                    for path, name, piece in self.target.pieces(key, tensor):
                        streams[path].write(name, piece)
                    if on_bytes is not None:
                        on_bytes(info.num_bytes)
            self.target.complete(folder, listing)
        self.target.announce()


def hf_to_mm(
    source: Path,
    target: Path,
    *,
    num_ranks: int = 1,
    layers: str | None = None,
    dtype: torch.dtype | None = None,
) -> Conversion:
    """From an official checkpoint (or its transformer folder) to training's `target/release`.

    num_ranks, layers, dtype: `--tp`, `--pp`, `--dtype`; None keeps one stage, and the dtypes.
    Raises CheckpointError if the source is incomplete, InvalidRequest for an impossible split.
    """
    folder = source / "transformer" if (source / "transformer").is_dir() else source
    if not folder.is_dir():
        raise CheckpointError(f"there is no checkpoint folder {source}")
    config = read_transformer_config(folder / "config.json")
    files, problem = scan_safetensors(folder, "diffusion_pytorch_model")
    if problem is not None:
        raise CheckpointError(problem)
    weights = RenewedSource(lambda: SafetensorsSource(files), MAX_MAPPED_BYTES)
    _check_complete(weights, config, folder)
    megatron = MegatronTarget(target, config, ParallelSplit.parse(num_ranks, layers, config))
    _check_apart(folder, megatron)
    return Conversion(source=weights, config=config, target=megatron, dtype=dtype)


def mm_to_hf(
    source: Path,
    target: Path,
    *,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> Conversion:
    """From a training checkpoint (or one of its iterations) to an official `target/transformer`.

    Raises CheckpointError if the source is incomplete.
    """
    weights, notes = _open_megatron(source)
    official = OfficialTarget(target, weights.config, max_shard_bytes)
    _check_apart(weights.folder, official)
    return Conversion(
        source=weights, config=weights.config, target=official, dtype=dtype, notes=notes
    )


def resplit(
    source: Path,
    target: Path,
    *,
    num_ranks: int = 1,
    layers: str | None = None,
    dtype: torch.dtype | None = None,
) -> Conversion:
    """From a training checkpoint to one of another split, at `target/release`.

    Raises CheckpointError if the source is incomplete, InvalidRequest for an impossible split.
    """
    weights, notes = _open_megatron(source)
    split = ParallelSplit.parse(num_ranks, layers, weights.config)
    megatron = MegatronTarget(target, weights.config, split)
    _check_apart(weights.folder, megatron)
    return Conversion(
        source=weights, config=weights.config, target=megatron, dtype=dtype, notes=notes
    )


def _open_megatron(source: Path) -> tuple[MegatronSource, tuple[str, ...]]:
    weights = MegatronSource(source, MAX_MAPPED_BYTES)
    _check_complete(weights, weights.config, weights.folder)
    if not weights.ignored:
        return weights, ()
    return weights, (
        f"{len(weights.ignored)} tensors are left out, such as {weights.ignored[0]}: the training "
        "code makes them, but nothing trains them and no official checkpoint has them",
    )


def _check_complete(source: WeightSource, config: TransformerConfig, where: Path) -> None:
    """CheckpointError unless the tensors are exactly those of the model."""
    comparison = compare(model_shapes(config), source.infos, lambda key: key)
    if comparison.fits:
        return
    advice = "Check the config, or copy the checkpoint again"
    if any(key.startswith(_MOTION_SCORE) for key in comparison.missing):
        advice = (
            "The public converter loses the motion score's embedder when it splits into pipeline "
            "stages: convert the official checkpoint again, with `stepvideo convert hf-to-mm`"
        )
    raise CheckpointError(
        f"{where} does not fit the transformer of its sizes: "
        f"{'; '.join(complaints(comparison, source.infos))}. {advice}"
    )


def _in_use(path: Path) -> bool:
    return any(path.iterdir()) if path.is_dir() else path.exists()


def _check_apart(source: Path, target: Target) -> None:
    """OutputError if the target would replace the source, or lie in it."""
    one, other = source.resolve(), target.folder.resolve()
    if one == other or other in one.parents or one in other.parents:
        raise OutputError(
            f"the output {target.folder} and the source {source} lie in one another; name another "
            "output"
        )
