"""The VAE and the text encoders of a checkpoint that comes without them, such as Turbo."""

from __future__ import annotations

import re
from pathlib import Path

from stepvideo_core.checkpoints.layout import SHARED_FOLDERS
from stepvideo_core.errors import CheckpointError

_USUAL_NAMES = ("stepvideo-t2v", "Step-Video-T2V")


def missing_folders(root: Path) -> list[str]:
    """Which of the folders that the family shares a checkpoint lacks."""
    return [name for name in SHARED_FOLDERS if not (root / name).is_dir()]


def base_name(name: str) -> str | None:
    """The name of the model that a Turbo was distilled from; None if this is no Turbo's name."""
    base = re.sub("[-_]?turbo", "", name, flags=re.IGNORECASE)
    return None if base in (name, "") else base


def find_shared(root: Path) -> Path | None:
    """The folder beside `root` that has what it lacks; None if it lacks nothing, or none has.

    Looks for the name without "turbo", then for the official model's usual names.
    """
    missing = missing_folders(root)
    if not missing:
        return None
    root = root.resolve()
    for name in (base_name(root.name), *_USUAL_NAMES):
        if name is None or name == root.name:
            continue
        sibling = root.parent / name
        if all((sibling / folder).is_dir() for folder in missing):
            return sibling
    return None


def shared_folder(root: Path, named: Path | None = None) -> Path | None:
    """Where what `root` lacks is taken from: the folder that the user named, or a sibling.

    Raises CheckpointError if something is missing and found nowhere.
    """
    missing = missing_folders(root)
    if not missing:
        return None
    listed = ", ".join(missing)
    if named is not None:
        absent = [name for name in missing if not (named / name).is_dir()]
        if absent:
            raise CheckpointError(
                f"{root} has no {listed}, and --shared {named} has no {', '.join(absent)} either; "
                "name the folder of a complete Step-Video checkpoint"
            )
        return named
    found = find_shared(root)
    if found is None:
        raise CheckpointError(
            f"{root} has no {listed}: put the checkpoint that it shares them with beside it as "
            f"{_USUAL_NAMES[0]}, or name it with --shared DIR"
        )
    return found
