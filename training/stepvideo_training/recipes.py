"""From a config to trained weights and a bundle: what `stepvideo train` does, part by part.

Everything of a training lies in one folder:
    tokenizers/  vae/  text/  dit/   state and log of each part
    latents/                         encoded clips, made again when the autoencoder changes
    bundle/                          the finished model in the official layout
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor, nn

from stepvideo_core.checkpoints.layout import ComponentName
from stepvideo_core.checkpoints.load import file_key
from stepvideo_core.checkpoints.model_folder import write_model_folder
from stepvideo_core.config import PRESETS, ModelConfig
from stepvideo_core.errors import CheckpointError
from stepvideo_core.models.vae import VideoVAE
from stepvideo_training.checkpoint import Snapshot, load_snapshot
from stepvideo_training.clips import ClipSource, WorldClips
from stepvideo_training.dit_task import DiTTask
from stepvideo_training.folder_clips import FolderClips
from stepvideo_training.latent_set import LatentSet, encode_clips, transformer_samples
from stepvideo_training.log import Observer, TrainingLog
from stepvideo_training.loop import Task, Trainer
from stepvideo_training.operators import training_plan
from stepvideo_training.processes import Processes
from stepvideo_training.settings import RunSettings, Stage, TrainingConfig
from stepvideo_training.text_encoders import TextEncoders
from stepvideo_training.text_task import TextTask
from stepvideo_training.tokens import CaptionTokenizer
from stepvideo_training.vae_task import VAETask

Part = Literal["vae", "text", "dit"]
PARTS: tuple[Part, ...] = get_args(Part)
_CAPTIONS_PER_CLIP = 8
"""The `step` of samples that are drawn for a set rather than for a step of training."""


@dataclass(frozen=True)
class Workshop:
    """One training: its config, its folder, and where it runs.

    until, minutes: step and time after which a part stops early.
    """

    config: TrainingConfig
    folder: Path
    processes: Processes
    observer: Observer | None = None
    tensorboard: bool = False
    until: int | None = None
    minutes: float | None = None

    @property
    def model(self) -> ModelConfig:
        return PRESETS[self.config.model]

    def train(self, part: Part) -> None:
        """Train one part from where it stands. Raises StepVideoError with what to do."""
        {"vae": self._train_vae, "text": self._train_text, "dit": self._train_dit}[part]()

    def write_bundle(self, target: Path | None = None) -> Path:
        """Write the averaged weights of all parts as a model folder; returns where.

        Raises CheckpointError if a part is not trained yet, OutputError if `target` is in use.
        """
        target = target or self.folder / "bundle"
        vae, dit = self._last("vae"), self._last("dit")
        steps = {"vae": vae.step, "text": self._last("text").step, "dit": dit.step}
        weights: dict[ComponentName, dict[str, Tensor]] = {
            "vae": averages(vae, "vae."),
            "transformer": averages(dit, "transformer."),
            "step_llm": averages(dit, "encoders.step_llm."),
            "clip": averages(dit, "encoders.clip."),
        }
        write_model_folder(
            target,
            self.model,
            lambda name: {file_key(name, key): t for key, t in weights[name].items()},
            preset=self.config.model,
            trained=True,
            tokenizers=self.folder / "tokenizers",
            notes={"training": {"steps": steps, "config": asdict(self.config)}},
        )
        return target

    def _train_vae(self) -> None:
        part = self.config.vae
        task = VAETask(
            self.model.vae,
            self._clips(),
            seed=self.config.seed,
            held_out_clips=part.held_out_clips,
            device=self.processes.device,
        )
        self._run("vae", task, part.stages, part.run, asdict(self.model.vae))

    def _train_text(self) -> None:
        part = self.config.text
        task = TextTask(
            self.model,
            self.config.data,
            self._tokenizer(),
            seed=self.config.seed,
            device=self.processes.device,
        )
        sizes = {"step_llm": asdict(self.model.step_llm), "clip": asdict(self.model.clip)}
        self._run("text", task, part.stages, part.run, sizes)

    def _train_dit(self) -> None:
        part, device = self.config.dit, self.processes.device
        encoders = TextEncoders(self.model, training_plan(device)).to(device)
        load_into(encoders, averages(self._last("text"), "encoders."))
        training, held_out = self._latents()
        task = DiTTask(
            self.model,
            encoders,
            self._tokenizer(),
            training,
            held_out,
            seed=self.config.seed,
            device=device,
            recompute=part.run.recompute,
        )
        self._run("dit", task, part.stages, part.run, asdict(self.model.transformer))

    def _run(
        self,
        name: Part,
        task: Task[Any],
        stages: Sequence[Stage],
        settings: RunSettings,
        sizes: Mapping[str, Any],
    ) -> None:
        folder = self.folder / name
        first = self.processes.is_first
        log = TrainingLog(
            folder if first else None,
            self.observer if first else None,
            tensorboard=self.tensorboard,
        )
        trainer = Trainer(
            task,
            stages,
            settings,
            seed=self.config.seed,
            folder=folder,
            processes=self.processes,
            log=log,
            identity=sizes,
        )
        try:
            trainer.run(until=self.until, minutes=self.minutes)
        finally:
            log.close()

    def _latents(self) -> tuple[LatentSet, LatentSet]:
        """Training and held-out clips through the averaged autoencoder."""
        device, part = self.processes.device, self.config.dit
        vae = VideoVAE(self.model.vae, training_plan(device)).to(device)
        load_into(vae, averages(self._last("vae"), "vae."))
        vae.eval().requires_grad_(False)
        clips = self._clips()

        def encode(name: str, count: int, *, held_out: bool) -> LatentSet:
            return encode_clips(
                vae,
                clips,
                transformer_samples(self.config.seed, count),
                held_out=held_out,
                device=device,
                cache=self.folder / "latents" / f"{name}.safetensors",
                advance=self._encoded,
            )

        # The first process encodes; the others then read what it kept.
        if not self.processes.is_first:
            self.processes.barrier()
        sets = (
            encode("training", part.num_clips, held_out=False),
            encode("held_out", part.held_out_clips, held_out=True),
        )
        if self.processes.is_first:
            self.processes.barrier()
        return sets

    def _encoded(self, done: int, total: int) -> None:
        if self.observer is not None and (done == total or done % 500 == 0):
            self.observer.on_message(f"{done} of {total} clips are encoded")

    def _clips(self) -> ClipSource:
        data = self.config.data
        if data.source == "world":
            return WorldClips(data, captions_per_clip=_CAPTIONS_PER_CLIP)
        report = self.observer.on_message if self.observer is not None else _ignore
        return FolderClips(data, report)

    def _tokenizer(self) -> CaptionTokenizer:
        if not self.processes.is_first:
            self.processes.barrier()
        tokenizer = CaptionTokenizer(self.folder / "tokenizers", self.model)
        if self.processes.is_first:
            self.processes.barrier()
        return tokenizer

    def _last(self, part: Part) -> Snapshot:
        report = self.observer.on_message if self.observer is not None else _ignore
        snapshot = load_snapshot(self.folder / part, report)
        if snapshot is None:
            raise CheckpointError(
                f"{self.folder / part} has no checkpoint: run `stepvideo train {part}` first"
            )
        return snapshot


def averages(snapshot: Snapshot, prefix: str) -> dict[str, Tensor]:
    """The averaged weights of a part of the trained module, by the part's own keys."""
    start = f"ema.{prefix}"
    return {
        name.removeprefix(start): tensor
        for name, tensor in snapshot.tensors.items()
        if name.startswith(start)
    }


def load_into(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy weights into a module with exactly these keys."""
    problem = module.load_state_dict(dict(weights), strict=False)
    if problem.missing_keys or problem.unexpected_keys:
        odd = [*problem.missing_keys, *problem.unexpected_keys]
        raise CheckpointError(
            f"the trained weights do not fit the config's model: {odd[0]} and {len(odd) - 1} more "
            "are on one side only"
        )


def _ignore(text: str) -> None:
    """Nobody listens."""


__all__ = ["PARTS", "Part", "Workshop", "averages", "load_into"]
