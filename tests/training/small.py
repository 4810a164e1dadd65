"""Trainings of a second or two, for this process or for one that is started and killed.

python -m tests.training.small TASK FOLDER [STEPS]
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from stepvideo_core.config import TINY, ModelConfig
from stepvideo_training.clips import WorldClips
from stepvideo_training.log import TrainingLog
from stepvideo_training.loop import Trainer
from stepvideo_training.processes import Processes, join_processes, leave_processes
from stepvideo_training.settings import DataSettings, DiTStage, RunSettings, VAEStage
from stepvideo_training.vae_task import VAETask

SMALL: ModelConfig = replace(
    TINY,
    vae=replace(
        TINY.vae, z_channels=4, decoder=replace(TINY.vae.decoder, multipliers=(2, 1, 1, 1))
    ),
    transformer=replace(
        TINY.transformer,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=2,
        in_channels=4,
        out_channels=4,
        caption_channels=(32, 32),
    ),
    step_llm=replace(TINY.step_llm, hidden_size=32, ffn_hidden_size=64, num_layers=1),
    clip=replace(TINY.clip, hidden_size=32, intermediate_size=32, num_hidden_layers=1),
)
DATA = DataSettings(num_frames=1, height=32, width=32)
RUN = RunSettings(
    precision="float32", save_every=2, evaluate_every=1000, log_every=1, clip_norm=10.0
)
VAE_STAGES = (
    VAEStage(steps=3, batch_size=4, num_frames=(1,), lr=1e-3, edge_weight=1.0, l1_weight=1.0),
    VAEStage(steps=300, batch_size=4, accumulate=2, num_frames=(1,), lr=1e-3),
)
DIT_STAGES = (DiTStage(steps=300, batch_size=8, lr=1e-3, warmup=2),)


def vae_trainer(folder: Path, processes: Processes, **changes: Any) -> Trainer[VAEStage]:
    """changes: of `RUN`."""
    device = processes.device
    task = VAETask(SMALL.vae, WorldClips(DATA), seed=1, held_out_clips=1, device=device)
    return _trainer(task, VAE_STAGES, folder, processes, changes)


def dit_trainer(folder: Path, processes: Processes, **changes: Any) -> Trainer[DiTStage]:
    """On random latents with real captions."""
    from stepvideo_training.dit_task import DiTTask
    from stepvideo_training.latent_set import LatentSet
    from stepvideo_training.operators import training_plan
    from stepvideo_training.text_encoders import TextEncoders, initialise_step_llm
    from stepvideo_training.tokens import CaptionTokenizer

    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(6, 1, 4, 2, 2, generator=generator)
    captions = [(f"a red circle moves {way}", f"圆形{way}") for way in ("up", "down", "left")] * 2
    latents = LatentSet(mean, torch.full_like(mean, 0.1), tuple(captions))
    torch.manual_seed(0)
    encoders = TextEncoders(SMALL, training_plan(processes.device))
    initialise_step_llm(encoders.step_llm)
    task = DiTTask(
        SMALL,
        encoders,
        CaptionTokenizer(folder.parent / "tokenizers", SMALL),
        latents,
        latents,
        seed=1,
        device=processes.device,
        recompute=bool(changes.get("recompute")),
    )
    return _trainer(task, DIT_STAGES, folder, processes, changes)


def _trainer(
    task: Any, stages: Any, folder: Path, processes: Processes, changes: dict[str, Any]
) -> Trainer[Any]:
    return Trainer(
        task,
        stages,
        replace(RUN, **changes),
        seed=1,
        folder=folder,
        processes=processes,
        log=TrainingLog(folder if processes.is_first else None),
        identity={"sizes": (1, 2)},
    )


TRAINERS = {"vae": vae_trainer, "dit": dit_trainer}


def main() -> None:
    torch.set_num_threads(1)
    names, folder = sys.argv[1], Path(sys.argv[2])
    processes = join_processes(torch.device("cpu"))
    try:
        for name in names.split(","):
            until = int(sys.argv[3]) if len(sys.argv) > 3 else None
            TRAINERS[name](folder / name, processes).run(until=until)
    finally:
        leave_processes(processes)


if __name__ == "__main__":
    main()
