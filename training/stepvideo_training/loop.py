"""The training loop: steps, averages, checkpoints, log. What is trained is a `Task`."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from stepvideo_core.errors import CheckpointError, InvalidRequest, NumericalFailure
from stepvideo_training.checkpoint import Snapshot, load_snapshot, save_snapshot
from stepvideo_training.ema import Ema
from stepvideo_training.log import TrainingLog
from stepvideo_training.muon import Muon
from stepvideo_training.processes import Processes, copy_into, full_tensor
from stepvideo_training.randomness import SampleRandom
from stepvideo_training.settings import RunSettings, Stage

S_contra = TypeVar("S_contra", bound=Stage, contravariant=True)
S = TypeVar("S", bound=Stage)


class Task(Protocol[S_contra]):
    """What a loop trains."""

    @property
    def module(self) -> nn.Module:
        """Holds every trained parameter; its call is what `loss` differentiates."""
        ...

    @property
    def units(self) -> Sequence[nn.Module]:
        """Parts of the module that are gathered one at a time when it is sharded."""
        ...

    def loss(
        self, stage: S_contra, samples: Sequence[SampleRandom]
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The mean loss over samples, and its parts for the log, without gradient."""
        ...

    def evaluate(self) -> Mapping[str, float]:
        """Figures of the module as it is, on held-out samples."""
        ...

    def rate(self, name: str, stage: S_contra) -> float:
        """Learning rate of a parameter, in units of the stage's."""
        ...


@dataclass(frozen=True)
class Place(Generic[S]):
    """Where a step lies: its stage and how many steps of the stage came before."""

    stage: S
    step_in_stage: int

    @property
    def lr(self) -> float:
        stage = self.stage
        if self.step_in_stage < stage.warmup:
            return stage.lr * (self.step_in_stage + 1) / stage.warmup
        done = (self.step_in_stage - stage.warmup) / max(stage.steps - stage.warmup, 1)
        return stage.final_lr + (stage.lr - stage.final_lr) * 0.5 * (1 + math.cos(math.pi * done))


def locate(stages: Sequence[S], step: int) -> Place[S] | None:
    """The place of a step, or None after the last stage."""
    for stage in stages:
        if step < stage.steps:
            return Place(stage, step)
        step -= stage.steps
    return None


class Trainer(Generic[S]):
    """Trains a task through its stages, from the last checkpoint in `folder` if there is one."""

    def __init__(
        self,
        task: Task[S],
        stages: Sequence[S],
        settings: RunSettings,
        *,
        seed: int,
        folder: Path,
        processes: Processes,
        log: TrainingLog,
        identity: Mapping[str, Any],
    ) -> None:
        """identity: what a checkpoint must agree with to be gone on from, such as model sizes.

        Raises InvalidRequest for batches that cannot be divided, CheckpointError for a checkpoint
        of another model.
        """
        self.task, self.stages, self.settings = task, tuple(stages), settings
        self.seed, self.folder, self.processes, self.log = seed, folder, processes, log
        # As JSON gives it back: without tuples.
        self.identity: dict[str, Any] = json.loads(json.dumps(identity))
        for stage in self.stages:
            if stage.batch_size % (stage.accumulate * processes.size):
                raise InvalidRequest(
                    f"a batch of {stage.batch_size} cannot be divided into {stage.accumulate} "
                    f"pieces for {processes.size} processes: change batch_size or accumulate"
                )
        processes.shard(task.module, task.units)
        self.parameters = dict(task.module.named_parameters())
        self.optimizer = Muon(self.parameters.items(), settings.optimizer)
        self.ema = Ema(self.parameters, settings.ema_decay)
        self.step = 0
        self._restore()

    @property
    def total_steps(self) -> int:
        return sum(stage.steps for stage in self.stages)

    def run(self, *, until: int | None = None, minutes: float | None = None) -> None:
        """Train to the end, or to step `until`, or for some minutes; save at the end.

        Raises NumericalFailure if the loss is not finite; the last checkpoint stays then.
        """
        started = time.monotonic()
        last = min(self.total_steps, until or self.total_steps)
        saved_at = self.step
        while self.step < last:
            self._one_step()
            if self.step % self.settings.evaluate_every == 0:
                self.evaluate()
            if self.step % self.settings.save_every == 0:
                self.save()
                saved_at = self.step
            # Every process must stop at the same step, so the first one's clock decides.
            if minutes is not None and self._agreed(time.monotonic() - started > 60 * minutes):
                break
        if saved_at != self.step:
            self.save()

    def evaluate(self) -> Mapping[str, float]:
        """Figures of the averaged weights, which also go to the log."""
        with self.ema.applied(), torch.no_grad(), self._autocast():
            with self.processes.gathered(self.task.module):
                figures = self.task.evaluate()
        self.log.evaluation(self.step, figures)
        return figures

    def save(self) -> None:
        """Write a checkpoint; gathers shards, so every process must take part."""
        tensors = {name: full_tensor(t) for name, t in self._tensors().items()}
        if self.processes.is_first:
            notes = {"identity": self.identity, "optimizer_steps": self.optimizer.num_steps}
            snapshot = Snapshot(self.step, tensors, notes)
            save_snapshot(self.folder, snapshot, keep=self.settings.keep)
        self.processes.barrier()

    def _one_step(self) -> None:
        place = locate(self.stages, self.step)
        assert place is not None
        stage, pieces = place.stage, place.stage.accumulate
        piece_size = stage.batch_size // pieces
        loss = torch.zeros((), device=self.processes.device)
        parts: dict[str, Tensor] = {}
        for piece in range(pieces):
            indices = (piece * piece_size + i for i in self.processes.share(piece_size))
            samples = [SampleRandom(self.seed, self.step, index) for index in indices]
            with self._autocast():
                piece_loss, piece_parts = self.task.loss(stage, samples)
            (piece_loss / pieces).backward()
            loss += piece_loss.detach() / pieces
            for name, value in piece_parts.items():
                parts[name] = parts.get(name, torch.zeros_like(loss)) + value.detach() / pieces
        loss = self.processes.mean(loss)
        if not bool(loss.isfinite()):
            raise NumericalFailure(
                f"the loss is {float(loss)} at step {self.step}: lower the learning rate and go on "
                f"from the last checkpoint in {self.folder}"
            )
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.settings.clip_norm)
        rates = {name: place.lr * self.task.rate(name, stage) for name in self.parameters}
        self.optimizer.step(rates)
        self.optimizer.zero_grad()
        self.ema.update(self.step)
        self.step += 1
        if self.step % self.settings.log_every == 0 or self.step == self.total_steps:
            row = {"loss": loss, **parts, "grad_norm": full_tensor(norm)}
            figures = {name: float(value) for name, value in row.items()}
            self.log.step(self.step, self.total_steps, {**figures, "lr": place.lr})

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.settings.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.processes.device.type, dtype=torch.bfloat16)

    def _agreed(self, stop: bool) -> bool:
        value = torch.tensor(float(stop), device=self.processes.device)
        return bool(self.processes.mean(value) > 0)

    def _tensors(self) -> dict[str, Tensor]:
        """Everything that a checkpoint holds, by name; the tensors themselves."""
        return {
            **{f"model.{name}": p.detach() for name, p in self.parameters.items()},
            **{f"ema.{name}": average for name, average in self.ema.state.items()},
            **{f"optimizer.{name}": tensor for name, tensor in self.optimizer.state.items()},
        }

    def _restore(self) -> None:
        snapshot = load_snapshot(self.folder, self.log.message)
        if snapshot is None:
            return
        if snapshot.notes["identity"] != self.identity:
            raise CheckpointError(
                f"the checkpoint in {self.folder} is of {snapshot.notes['identity']}, but the "
                f"config describes {self.identity}; train into another folder"
            )
        tensors = self._tensors()
        if tensors.keys() != snapshot.tensors.keys():
            odd = sorted(tensors.keys() ^ snapshot.tensors.keys())
            raise CheckpointError(
                f"the checkpoint in {self.folder} does not fit the config: {odd[0]} and "
                f"{len(odd) - 1} more tensors are on one side only; train into another folder"
            )
        for name, tensor in tensors.items():
            copy_into(tensor, snapshot.tensors[name])
        self.step, self.optimizer.num_steps = snapshot.step, snapshot.notes["optimizer_steps"]
        self.log.message(f"going on from step {self.step}")
