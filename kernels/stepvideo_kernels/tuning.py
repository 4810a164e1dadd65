"""Optional autotuning with a persisted cache; off unless `enable_tuning()` is called.

Off, every kernel uses the default config that its file derives from the shape alone, so two runs
on any machine launch the same programs. On, the candidates are timed once per device, Triton
version, kernel and shape bucket, and the winner is kept in a JSON file.
"""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import torch
import triton
from triton.runtime import errors

Timer = Callable[[Callable[[], None]], float]
"""Milliseconds that a call takes."""


class Config(Protocol):
    """A frozen dataclass of launch parameters."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


ConfigT = TypeVar("ConfigT", bound=Config)


def default_path() -> Path:
    """`stepvideo/kernels.json` in the user's cache folder."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "stepvideo" / "kernels.json"


def _do_bench(call: Callable[[], None]) -> float:
    # The median, after warm-up and with the cache flushed between calls.
    return float(triton.testing.do_bench(call, return_mode="median"))


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


class Tuner:
    """Times candidates and remembers the fastest."""

    def __init__(self, path: Path, timer: Timer = _do_bench) -> None:
        self._path, self._timer = path, timer
        self._known = self._read()

    def choose(
        self,
        kernel: str,
        bucket: tuple[object, ...],
        device: torch.device,
        run: Callable[[ConfigT], None],
        default: ConfigT,
        candidates: Iterable[ConfigT],
    ) -> ConfigT:
        """The remembered config if it is still a candidate, else the fastest one, measured now.

        A candidate that cannot be compiled or needs more shared memory than the device has is out
        of the race; the default is always in it.
        """
        key = "|".join(
            [_device_name(device), f"triton {triton.__version__}", kernel, *map(str, bucket)]
        )
        options = list(dict.fromkeys([default, *candidates]))
        remembered = self._known.get(key)
        for option in options:
            if asdict(option) == remembered:
                return option
        timings = {option: self._time(run, option, option == default) for option in options}
        best = min(options, key=lambda option: timings[option])
        self._remember(key, asdict(best))
        return best

    def _time(self, run: Callable[[ConfigT], None], config: ConfigT, required: bool) -> float:
        try:
            return self._timer(lambda: run(config))
        except (errors.OutOfResources, errors.PTXASError, triton.compiler.CompilationError):
            if required:
                raise
            return float("inf")

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            warnings.warn(f"kernel cache {self._path} is unreadable: {error}", stacklevel=3)
            return {}
        return found if isinstance(found, dict) else {}

    def _remember(self, key: str, config: dict[str, Any]) -> None:
        # Another process may have added entries since; a rename is atomic, so readers never see
        # half a file. Two writers at once may lose an entry, which is then measured again.
        self._known = {**self._read(), **self._known, key: config}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self._path.parent, suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(self._known, file, indent=1, sort_keys=True)
        os.replace(temporary, self._path)


_tuner: Tuner | None = None


def enable_tuning(path: Path | None = None, timer: Timer = _do_bench) -> None:
    """Tune kernels from now on in this process; path: the cache file, the user's by default."""
    global _tuner
    _tuner = Tuner(path or default_path(), timer)


def disable_tuning() -> None:
    """Go back to the default configs."""
    global _tuner
    _tuner = None


def active_tuner() -> Tuner | None:
    """The tuner, if tuning is switched on."""
    return _tuner
