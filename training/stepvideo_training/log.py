"""What a training says: a JSONL file for programs, and an observer for the terminal."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from stepvideo_core.errors import InvalidRequest, OutputError


class Observer(Protocol):
    """Hears of the training as it goes on."""

    def on_step(self, step: int, total: int, figures: Mapping[str, float]) -> None:
        """Some steps are done; figures of the last one."""
        ...

    def on_evaluation(self, step: int, figures: Mapping[str, float]) -> None:
        """Figures on held-out samples."""
        ...

    def on_message(self, text: str) -> None:
        """A sentence for the user."""
        ...


class TrainingLog:
    """Appends to `log.jsonl`; every line has its kind, step, and seconds since 1970."""

    def __init__(
        self, folder: Path | None, observer: Observer | None = None, *, tensorboard: bool = False
    ) -> None:
        """folder: None keeps quiet, as all processes but the first do.

        tensorboard: also write its event files. Raises InvalidRequest if it is not installed.
        """
        self._path = None if folder is None else folder / "log.jsonl"
        self._observer = observer
        self._writer: Any = None
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(f"{folder} cannot be made: {error}") from error
            if tensorboard:
                self._writer = _summary_writer(folder)

    def step(self, step: int, total: int, figures: Mapping[str, float]) -> None:
        """Figures of a step; the loss among them."""
        self._write("step", step, figures)
        if self._observer is not None:
            self._observer.on_step(step, total, figures)

    def evaluation(self, step: int, figures: Mapping[str, float]) -> None:
        """Figures on held-out samples."""
        self._write("evaluation", step, figures)
        if self._observer is not None:
            self._observer.on_evaluation(step, figures)

    def message(self, text: str) -> None:
        """Something that the user should read."""
        self._write("message", None, {"text": text})
        if self._observer is not None:
            self._observer.on_message(text)

    def close(self) -> None:
        """Flush what TensorBoard holds back."""
        if self._writer is not None:
            self._writer.close()

    def _write(self, kind: str, step: int | None, values: Mapping[str, Any]) -> None:
        if self._path is None:
            return
        row = {"kind": kind, "step": step, "time": round(time.time(), 3), **values}
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        except OSError as error:
            raise OutputError(f"{self._path} cannot be written: {error}") from error
        if self._writer is not None and step is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"{kind}/{name}", value, step)


def _summary_writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InvalidRequest(
            "--tensorboard needs the package tensorboard: pip install tensorboard"
        ) from error
    return SummaryWriter(str(folder))
