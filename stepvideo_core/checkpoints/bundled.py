"""Finding the checkpoint that `--model` names."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from stepvideo_core.config import PRESETS
from stepvideo_core.errors import CheckpointError

TINY = "tiny"
SHIPPED_TINY = Path(__file__).parents[1] / "bundled" / TINY
"""Where the trained weights lie in the package."""


def resolve_model(model: str | Path) -> Path:
    """The folder of a model: a path as it is, or the `tiny` that ships with stepvideo.

    Raises CheckpointError for the name of a preset that does not ship.
    """
    if str(model) != TINY:
        path = Path(model).expanduser()
        if not path.is_dir() and str(model) in PRESETS:
            raise CheckpointError(
                f"model {model}: only {TINY!r} ships with stepvideo; give the folder of the "
                "downloaded checkpoint"
            )
        return path
    return SHIPPED_TINY


def model_name(root: Path) -> str:
    """What a report calls the model in a folder: `tiny` for the one that ships, else the path."""
    return TINY if root.resolve() == SHIPPED_TINY.resolve() else str(root.resolve())


def cache_folder() -> Path:
    """Where stepvideo keeps what it can make again: STEPVIDEO_CACHE, or the platform's place."""
    if "STEPVIDEO_CACHE" in os.environ:
        return Path(os.environ["STEPVIDEO_CACHE"])
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", "~/AppData/Local"))
    elif sys.platform == "darwin":
        base = Path("~/Library/Caches")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"))
    return base.expanduser() / "stepvideo"
