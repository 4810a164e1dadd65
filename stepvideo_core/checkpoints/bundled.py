"""Finding the checkpoint that `--model` names."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from stepvideo_core.checkpoints.untrained import write_untrained
from stepvideo_core.config import PRESETS
from stepvideo_core.errors import CheckpointError, OutputError

TINY = "tiny"
SHIPPED_TINY = Path(__file__).parents[1] / "bundled" / TINY
"""Where the trained weights lie in the package."""


def resolve_model(model: str | Path) -> Path:
    """The folder of a model: a path as it is, or the bundled `tiny`.

    From a checkout without the trained weights, an untrained `tiny` is written once to the user's
    cache folder; its `stepvideo.json` says that it is untrained, and so does every run.
    """
    if str(model) != TINY:
        path = Path(model).expanduser()
        if not path.is_dir() and str(model) in PRESETS:
            raise CheckpointError(
                f"--model {model}: only {TINY!r} ships with stepvideo; give the folder of the "
                "downloaded checkpoint"
            )
        return path
    if (SHIPPED_TINY / "stepvideo.json").is_file():
        return SHIPPED_TINY
    target = cache_folder() / "tiny-untrained-2"
    marker = target / "stepvideo.json"
    if not marker.is_file():
        try:
            write_untrained(target)
        except OutputError:
            # Another process may have written it in the meantime; the folder appears at once.
            if not marker.is_file():
                raise
    return target


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
