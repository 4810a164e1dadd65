"""What a training is told, as frozen dataclasses; `config_file` reads them from TOML.

A run is a list of stages that follow one another, each with its own batch, rates and weights.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from stepvideo_training.muon import OptimizerSettings

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stretch of training.

    steps: optimiser steps. batch_size: samples per step over all processes; accumulate: pieces
    that a step's batch is computed in. lr falls along a cosine to final_lr after `warmup` steps of
    linear rise.
    """

    steps: int = 1
    batch_size: int = 1
    accumulate: int = 1
    lr: float = 1e-3
    final_lr: float = 1e-3
    warmup: int = 0


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What the loop does around the steps.

    precision: of the computation; parameters stay in float32. recompute: activation
    checkpointing, which trades a second forward pass for memory. save_every, evaluate_every,
    log_every: in steps. keep: how many of the last checkpoints stay on disk.
    """

    precision: Precision = "bfloat16"
    recompute: bool = False
    ema_decay: float = 0.999
    clip_norm: float = 1.0
    save_every: int = 100
    keep: int = 2
    evaluate_every: int = 100
    log_every: int = 10
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Where clips come from: the procedural world, or a folder of videos with `data.jsonl`.

    distribution: which part of the world, "tiny" or "world". Sizes are those of the clips.
    """

    source: Literal["world", "folder"] = "world"
    distribution: Literal["tiny", "world"] = "tiny"
    folder: str = ""
    num_frames: int = 17
    height: int = 64
    width: int = 64


@dataclass(frozen=True, kw_only=True)
class VAEStage(Stage):
    """num_frames: lengths of the clips, taken in turn from step to step; each 1-4, 9-12, or a
    multiple of 17. Only whole clips teach the last latent frame, but short ones cost less."""

    num_frames: tuple[int, ...] = (17,)
    edge_weight: float = 0.0
    l1_weight: float = 0.0
    l2_weight: float = 1.0
    kl_weight: float = 5e-4
    moment_weight: float = 0.0
    latent_noise: float = 0.0
    """Standard deviation of noise on the latents beside the posterior's own, so that the decoder
    bears latents that are a little off, as sampled ones are."""


@dataclass(frozen=True, kw_only=True)
class TextStage(Stage):
    """Pre-training of both text encoders by telling what a caption names."""


@dataclass(frozen=True, kw_only=True)
class DiTStage(Stage):
    """Flow matching.

    time_mean, time_std: of the normal distribution whose sigmoid is t; a negative mean leans to
    noise. time_shift: moves t further towards the noise, as the sampler's shift does. text_lr:
    learning rate of the text encoders in units of the transformer's. caption_dropout: how often a
    caption is empty, which trains the unconditional branch of guidance.
    """

    time_mean: float = 0.0
    time_std: float = 1.0
    time_shift: float = 1.0
    text_lr: float = 0.3
    caption_dropout: float = 0.1


@dataclass(frozen=True, kw_only=True)
class VAETraining:
    run: RunSettings = RunSettings()
    stages: tuple[VAEStage, ...] = ()
    held_out_clips: int = 16


@dataclass(frozen=True, kw_only=True)
class TextTraining:
    run: RunSettings = RunSettings()
    stages: tuple[TextStage, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DiTTraining:
    """num_clips: how many clips are encoded in advance, each with its posterior."""

    run: RunSettings = RunSettings()
    stages: tuple[DiTStage, ...] = ()
    num_clips: int = 4096
    held_out_clips: int = 64


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Everything that a training from scratch is told.

    model: name of the preset that gives the sizes. seed: of everything random.
    """

    model: str = "tiny"
    seed: int = 0
    data: DataSettings = DataSettings()
    vae: VAETraining = field(default_factory=VAETraining)
    text: TextTraining = field(default_factory=TextTraining)
    dit: DiTTraining = field(default_factory=DiTTraining)
