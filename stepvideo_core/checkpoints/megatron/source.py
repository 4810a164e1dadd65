"""A training checkpoint seen as the official one: whole tensors by official names."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from stepvideo_core.checkpoints.megatron.rank_file import RankFile
from stepvideo_core.checkpoints.megatron.rules import (
    join,
    layer_of,
    official_key,
    rule_of,
    training_key,
    whole_shape,
)
from stepvideo_core.checkpoints.megatron.sizes import config_of
from stepvideo_core.checkpoints.megatron.split import (
    POINTER_FILE,
    RELEASE,
    WEIGHTS_FILE,
    ParallelSplit,
)
from stepvideo_core.checkpoints.renewed import RenewedSource
from stepvideo_core.checkpoints.sources import TensorInfo
from stepvideo_core.errors import CheckpointError

_RANK_FOLDER = re.compile(r"mp_rank_(\d+)(?:_(\d+))?")
# Embedders that the training code creates beside the motion score's and leaves untrained; official
# checkpoints do not have them.
_UNTRAINED = re.compile(r"adaln_single\.emb\.(resolution|nframe|fps)_embedder\..+")


def find_iteration(path: Path) -> Path:
    """The folder of the ranks: `path` itself, or the one that its pointer file names.

    Raises CheckpointError if there is none.
    """
    if not path.is_dir():
        raise CheckpointError(f"there is no checkpoint folder {path}")
    if any(_rank_folders(path)):
        return path
    pointer = path / POINTER_FILE
    try:
        name = pointer.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} is no training checkpoint: it has neither mp_rank_* folders nor {POINTER_FILE}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{pointer} cannot be read: {error}") from error
    if name != RELEASE and not name.isdecimal():
        raise CheckpointError(f"{pointer} says {name!r}, which is neither a number nor {RELEASE!r}")
    folder = path / (name if name == RELEASE else f"iter_{int(name):07d}")
    if not folder.is_dir() or not any(_rank_folders(folder)):
        raise CheckpointError(
            f"{pointer} names the iteration {name}, but {folder} has no mp_rank_* folders; name "
            "the folder of another iteration"
        )
    return folder


class MegatronSource:
    """The tensors of a training checkpoint, joined over ranks and stages when they are read.

    config: the transformer's sizes, which follow from the shapes. split: how it was divided.
    ignored: names in training of tensors that no official checkpoint has and nothing trained.
    """

    def __init__(self, path: Path, max_mapped_bytes: int) -> None:
        """max_mapped_bytes: about what stays resident of all files together.

        Raises CheckpointError if a rank or stage is missing, a file is broken or would run code,
        or the ranks do not agree.
        """
        self.folder = find_iteration(path)
        files = _grid(self.folder)
        share = max_mapped_bytes // sum(len(ranks) for ranks in files)
        self._stages = [
            [RenewedSource(partial(RankFile, file), share) for file in ranks] for ranks in files
        ]
        for ranks in self._stages:
            _check_ranks_agree(ranks)
        first = [ranks[0].infos for ranks in self._stages]
        self.split = ParallelSplit(
            num_ranks=len(files[0]),
            layers=tuple(
                _num_layers(infos, ranks[0].parent)
                for infos, ranks in zip(first, files, strict=True)
            ),
        )
        self.ignored: list[str] = []
        self._infos: dict[str, TensorInfo] = {}
        self._stage_of: dict[str, int] = {}
        for stage, infos in enumerate(first):
            self._add_stage(stage, infos)
        self.config = config_of({key: info.shape for key, info in self._infos.items()}, self.folder)

    def _add_stage(self, stage: int, infos: Mapping[str, TensorInfo]) -> None:
        for name, info in infos.items():
            if _UNTRAINED.fullmatch(name):
                self.ignored.append(name)
                continue
            key = official_key(name, self.split.first_layers[stage])
            if key in self._infos:
                raise CheckpointError(
                    f"tensor {name!r} is in both {self._infos[key].file} and {info.file}"
                )
            shape = whole_shape(info.shape, rule_of(key), self.split.num_ranks)
            self._infos[key] = TensorInfo(shape, info.dtype, info.file)
            self._stage_of[key] = stage

    @property
    def infos(self) -> Mapping[str, TensorInfo]:
        """By official key; `file` is the first rank's."""
        return self._infos

    def read(self, key: str) -> Tensor:
        """A whole tensor in the official packing.

        Raises CheckpointError if ranks hold different copies of what they should share.
        """
        stage = self._stage_of[key]
        name, rule = training_key(key, self.split.first_layers[stage]), rule_of(key)
        ranks = self._stages[stage]
        parts = [rank.read(name) for rank in ranks]
        if rule.axis is None:
            for rank, part in zip(ranks[1:], parts[1:], strict=True):
                if not _same_bits(parts[0], part):
                    raise CheckpointError(
                        f"{name} should be the same on all ranks, but {ranks[0].infos[name].file} "
                        f"and {rank.infos[name].file} differ: they are of different trainings or "
                        "moments"
                    )
        return join(parts, rule, self.config.num_attention_heads)


def _same_bits(one: Tensor, other: Tensor) -> bool:
    """NaNs included, which compare unequal as numbers."""
    bits = [tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other)]
    return torch.equal(*bits)


def _rank_folders(folder: Path) -> dict[tuple[int, int], Path]:
    """Rank folders by (stage, rank)."""
    found = {}
    for child in folder.iterdir():
        match = _RANK_FOLDER.fullmatch(child.name)
        if match is not None and child.is_dir():
            found[int(match[2] or 0), int(match[1])] = child
    return found


def _grid(folder: Path) -> list[list[Path]]:
    """The weight files by stage and rank; CheckpointError if some are missing."""
    found = _rank_folders(folder)
    num_stages, num_ranks = (1 + max(place[axis] for place in found) for axis in (0, 1))
    places = itertools.product(range(num_stages), range(num_ranks))
    missing = [place for place in places if place not in found]
    if missing:
        stage, rank = missing[0]
        raise CheckpointError(
            f"{folder} has files of {num_ranks} ranks and {num_stages} stages, but {len(missing)} "
            f"of them are missing, such as rank {rank} of stage {stage}; copy them from the "
            "machine that saved them"
        )
    return [
        [found[stage, rank] / WEIGHTS_FILE for rank in range(num_ranks)]
        for stage in range(num_stages)
    ]


def _check_ranks_agree(ranks: list[RenewedSource]) -> None:
    """CheckpointError unless the ranks of a stage have tensors of the same names and sizes."""
    first, *others = (rank.infos for rank in ranks)
    for infos in others:
        for key in first.keys() | infos.keys():
            one, other = first.get(key), infos.get(key)
            if one is None or other is None:
                found = one or other
                assert found is not None
                raise CheckpointError(
                    f"tensor {key!r} is in {found.file}, but another rank of that stage lacks it"
                )
            if (one.shape, one.dtype) != (other.shape, other.dtype):
                raise CheckpointError(
                    f"tensor {key!r} is {one.dtype} {list(one.shape)} in {one.file}, but "
                    f"{other.dtype} {list(other.shape)} in {other.file}"
                )


def _num_layers(infos: Mapping[str, TensorInfo], folder: Path) -> int:
    """Blocks of a stage; CheckpointError unless they are numbered from 0 without a gap."""
    layers = {layer for key in infos if (layer := layer_of(key)) is not None}
    if layers != set(range(len(layers))) or not layers:
        raise CheckpointError(
            f"{folder} has the blocks {sorted(layers)}; every stage must number its own from 0"
        )
    return len(layers)
