"""`stepvideo train`: from a config to a model. The work is in the package `stepvideo_training`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from stepvideo_core.cli import options
from stepvideo_core.cli.console import print_json, stderr
from stepvideo_core.errors import InvalidRequest

_STAGES = ("vae", "text", "dit", "bundle", "all")


class _TrainingConsole:
    """On a terminal one line that is always the newest; elsewhere a line per log entry."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._console = stderr()
        self._started: tuple[int, float] | None = None

    def on_step(self, step: int, total: int, figures: Mapping[str, float]) -> None:
        text = f"{self._name} {step}/{total}{self._remaining(step, total)}  {_shown(figures)}"
        if not self._console.is_terminal:
            self._say(text)
            return
        width = self._console.width - 1
        self._console.print(text[:width].ljust(width), end="\r", markup=False)

    def on_evaluation(self, step: int, figures: Mapping[str, float]) -> None:
        self._say(f"{self._name} {step}, held out: {_shown(figures)}")

    def on_message(self, text: str) -> None:
        self._say(f"{self._name}: {text}")

    def _say(self, text: str) -> None:
        pad = self._console.width - 1 if self._console.is_terminal else 0
        self._console.print(text.ljust(pad), soft_wrap=True, markup=False)

    def _remaining(self, step: int, total: int) -> str:
        """Time to the end at the pace since the first line."""
        now = time.monotonic()
        if self._started is None:
            self._started = (step, now)
            return ""
        first, started = self._started
        minutes = (now - started) / max(step - first, 1) * (total - step) / 60
        return f"  {minutes:.0f} min left"


def _shown(figures: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in figures.items())


def train(
    what: Annotated[
        str, typer.Argument(help="vae, text, dit, bundle (write the model), or all in this order.")
    ],
    config: Annotated[
        str, typer.Option("--config", help="A TOML file, or the name of a shipped config.")
    ] = "tiny",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder of the training. Default: train-CONFIG."),
    ] = None,
    until: Annotated[
        int | None, typer.Option("--until", min=1, help="Stop each part at this step.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option("--minutes", min=0.01, help="Stop each part after this time.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="CPU threads of torch.")
    ] = None,
    device: options.DeviceOption = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write TensorBoard event files.")
    ] = False,
    json_output: options.JsonOption = False,
) -> None:
    """Train a part of a model, or all of it; goes on from the last checkpoint in the folder.

    On several processes: torchrun --nproc-per-node N -m stepvideo_core.cli train ...
    """
    import torch

    from stepvideo_core.dispatch import DispatchPolicy, select_device
    from stepvideo_core.plugins import load_registry
    from stepvideo_training.config_file import load_config
    from stepvideo_training.processes import join_processes, leave_processes
    from stepvideo_training.recipes import PARTS, Workshop

    if what not in _STAGES:
        raise InvalidRequest(f"cannot train {what!r}: take one of {', '.join(_STAGES)}")
    settings = load_config(config)
    if threads is not None:
        torch.set_num_threads(threads)
    processes = join_processes(select_device(load_registry(), DispatchPolicy(), device))
    folder = output or Path(f"train-{Path(config).stem}")
    bundle = None
    try:
        for part in PARTS if what == "all" else (what,):
            workshop = Workshop(
                settings,
                folder,
                processes,
                _TrainingConsole(part) if processes.is_first else None,
                tensorboard=tensorboard,
                until=until,
                minutes=minutes,
            )
            if part in PARTS:
                workshop.train(part)
        if what in ("all", "bundle") and processes.is_first:
            bundle = Workshop(settings, folder, processes).write_bundle()
    finally:
        leave_processes(processes)
    if not processes.is_first:
        return
    if json_output:
        print_json({"folder": str(folder), "bundle": None if bundle is None else str(bundle)})
    elif bundle is not None:
        stderr().print(f"the model is in {bundle}: stepvideo run ... --model {bundle}")
