"""From what `--model` names to an open checkpoint: a folder, `tiny`, or a model on a hub."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from stepvideo_core.checkpoints.bundled import resolve_model
from stepvideo_core.checkpoints.layout import CheckpointLayout, Preset
from stepvideo_core.checkpoints.shared import base_name, missing_folders, shared_folder
from stepvideo_core.errors import CheckpointError
from stepvideo_core.hub import huggingface
from stepvideo_core.hub.fetch import Hub, download_model, is_complete, models_folder
from stepvideo_core.progress import Observer

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_model_id(model: str | Path) -> bool:
    """Whether this is `owner/name` on a hub, rather than a folder.

    What exists is a folder, and so is anything below a folder that exists: a misspelt path should
    not make a program ask the network.
    """
    text = str(model)
    if isinstance(model, Path) or _ID.fullmatch(text) is None:
        return False
    return not Path(text).exists() and not Path(text).parent.is_dir()


def open_checkpoint(
    model: str | Path,
    *,
    hub: Hub = "huggingface",
    shared: str | Path | None = None,
    preset: Preset | None = None,
    download: bool = True,
    observer: Observer | None = None,
) -> CheckpointLayout:
    """The checkpoint that a folder, `tiny`, or an id such as `stepfun-ai/stepvideo-t2v` names.

    A model that is on this machine is not looked up anywhere. hub: where others are fetched from;
    download: whether they may be. shared: the folder whose VAE and text encoders are used if the
    model has none; by default one beside it, or the model that a Turbo was distilled from. preset:
    see `CheckpointLayout`. Raises StepVideoError with what to do.
    """
    if not is_model_id(model):
        root = resolve_model(model)
    else:
        name = str(model)
        root = _local(name) or _fetched(name, hub, None, download, observer)
        missing, base = missing_folders(root), base_name(name)
        if missing and shared is None and base is not None:
            shared = _local(base, missing) or _fetched(base, hub, missing, download, observer)
    layout = CheckpointLayout(root)  # first, for its errors about the folder itself
    named = None if shared is None else Path(shared).expanduser()
    return CheckpointLayout(layout.root, shared_folder(root, named), preset)


def _local(model: str, folders: Collection[str] | None = None) -> Path | None:
    """Where a model, or these of its folders, lies complete on this machine."""
    own = models_folder(model)
    if is_complete(own, folders):
        return own
    snapshot = huggingface.cached_snapshot(model)
    if snapshot is None:
        return None
    if folders is not None:
        return snapshot if all((snapshot / name).is_dir() for name in folders) else None
    if not (snapshot / "transformer").is_dir():
        return None
    return snapshot if CheckpointLayout(snapshot).scan("transformer")[1] is None else None


def _fetched(
    model: str,
    hub: Hub,
    folders: Collection[str] | None,
    download: bool,
    observer: Observer | None,
) -> Path:
    if not download:
        raise CheckpointError(
            f"{model} is not on this machine, neither as a folder nor from a hub: fetch it with "
            f"`stepvideo download {model}`"
        )
    target = models_folder(model)
    download_model(model, target, hub=hub, folders=folders, observer=observer)
    return target
