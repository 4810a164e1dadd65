"""Which rank and which pipeline stage hold what, and in which file."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

from stepvideo_core.checkpoints.megatron.rules import layer_of
from stepvideo_core.config import TransformerConfig
from stepvideo_core.errors import InvalidRequest

WEIGHTS_FILE = "model_optim_rng.pt"
RELEASE = "release"
POINTER_FILE = "latest_checkpointed_iteration.txt"
"""Beside the folders of the iterations; says which of them is meant."""

_LAST_STAGE = ("scale_shift_table", "proj_out.")


@dataclass(frozen=True, kw_only=True)
class ParallelSplit:
    """A division of the transformer among devices.

    num_ranks: of tensor parallelism. layers: blocks in each pipeline stage.
    """

    num_ranks: int = 1
    layers: tuple[int, ...]

    @classmethod
    def parse(cls, num_ranks: int, layers: str | None, config: TransformerConfig) -> ParallelSplit:
        """From `--tp 8` and `--pp 24,24`; None is one stage.

        Raises InvalidRequest for a division that the model does not allow.
        """
        total = config.num_layers
        try:
            stages = (total,) if layers is None else tuple(int(n) for n in layers.split(","))
        except ValueError:
            stages = ()
        if not stages or min(stages) < 1 or sum(stages) != total:
            even = f"{total - total // 2},{total // 2}"
            raise InvalidRequest(
                f"--pp {layers!r} does not say how the {total} blocks are divided: give the number "
                f"of blocks in each stage, such as --pp {even if total > 1 else total}"
            )
        split = cls(num_ranks=num_ranks, layers=stages)
        split.check(config)
        return split

    def check(self, config: TransformerConfig) -> None:
        """InvalidRequest unless the heads can be shared evenly."""
        if self.num_ranks < 1 or config.num_attention_heads % self.num_ranks:
            heads = config.num_attention_heads
            allowed = [str(n) for n in range(1, heads + 1) if heads % n == 0]
            raise InvalidRequest(
                f"--tp {self.num_ranks} does not divide the {heads} attention heads of this model; "
                f"use one of {', '.join(allowed)}"
            )

    @property
    def num_stages(self) -> int:
        return len(self.layers)

    @property
    def first_layers(self) -> tuple[int, ...]:
        """The first block of each stage."""
        return (0, *itertools.accumulate(self.layers[:-1]))

    def stage_of(self, key: str) -> int:
        """The stage that holds a tensor, by its official key.

        Everything before the blocks is in the first stage, the motion score's embedder included,
        which the public converter forgets; the output layer is in the last.
        """
        layer = layer_of(key)
        if layer is None:
            return self.num_stages - 1 if key.startswith(_LAST_STAGE) else 0
        ends = itertools.accumulate(self.layers)
        return next(stage for stage, end in enumerate(ends) if layer < end)

    def file(self, rank: int, stage: int) -> Path:
        """The file of a rank within the folder of an iteration."""
        folder = f"mp_rank_{rank:02d}"
        if self.num_stages > 1:
            folder += f"_{stage:03d}"
        return Path(folder) / WEIGHTS_FILE
