"""A whole model from a hub into a folder, with progress; what is there is not fetched again."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from filelock import FileLock, Timeout

from stepvideo_core.checkpoints.bundled import cache_folder
from stepvideo_core.checkpoints.files import read_json, write_json
from stepvideo_core.checkpoints.layout import SHARED_FOLDERS
from stepvideo_core.errors import CheckpointError, DownloadFailed, OutputError
from stepvideo_core.hub import huggingface, modelscope
from stepvideo_core.hub.listing import HubFile, Listing
from stepvideo_core.hub.transfer import checksum_problem, fetch_file, missing_bytes
from stepvideo_core.progress import Observer, StageLog

Hub = Literal["huggingface", "modelscope"]
HUBS: tuple[Hub, ...] = get_args(Hub)

MARKER = ".stepvideo-download.json"
"""Written when everything has arrived: where from, at which revision, which folders."""


def models_folder(model: str) -> Path:
    """Where a model from a hub is kept: models of one owner lie side by side."""
    return cache_folder() / "models" / model


def is_complete(target: Path, folders: Collection[str] | None = None) -> bool:
    """Whether a download into `target` came to its end; asks no server.

    folders: those that are needed; None means the whole model.
    """
    try:
        marker = read_json(target / MARKER)
    except CheckpointError:
        return False
    had = marker.get("folders")
    return had is None or (folders is not None and set(folders) <= set(had))


def download_model(
    model: str,
    target: Path,
    *,
    hub: Hub = "huggingface",
    folders: Collection[str] | None = None,
    verify: bool = False,
    observer: Observer | None = None,
) -> list[str]:
    """Fetch a model into the folder `target`; returns those shared folders that it does not have.

    folders: only these of its folders. verify: compare files that are there with the hub's
    checksums, too, and fetch those anew that differ; what is fetched is always compared.
    Raises DownloadFailed for an unknown model, an unreachable hub, or damaged content; OutputError
    for a folder that cannot be written or too full a disk. Running it again resumes.
    """
    with _locked(target):
        if hub == "modelscope":
            modelscope.download(model, target, folders)
            _finish(target, model, hub, None, folders)
            return [name for name in SHARED_FOLDERS if not (target / name).is_dir()]
        listing = huggingface.list_model(model)
        files = listing.wanted(folders)
        if folders is None and "transformer" not in listing.folders():
            raise DownloadFailed(
                f"{model} holds no Step-Video checkpoint: it has no transformer folder"
            )
        if verify:
            _remove_damaged(files, target, observer)
        _check_space(files, target)
        _fetch_all(listing, files, target, observer)
        _finish(target, model, hub, listing.revision, folders)
    return [name for name in SHARED_FOLDERS if name not in listing.folders()]


def _fetch_all(
    listing: Listing, files: list[HubFile], target: Path, observer: Observer | None
) -> None:
    total = sum(missing_bytes(file, target / file.path) for file in files)
    log = StageLog(torch.device("cpu"), observer)
    with log.stage("download", total, "bytes") as advance:
        for file in files:
            fetch_file(file, target / file.path, listing.headers, advance)


def _remove_damaged(files: list[HubFile], target: Path, observer: Observer | None) -> None:
    present = [file for file in files if (target / file.path).is_file()]
    log = StageLog(torch.device("cpu"), observer)
    with log.stage("verify", sum(file.size for file in present), "bytes") as advance:
        for file in present:
            if checksum_problem(file, target / file.path) is not None:
                (target / file.path).unlink()
            advance(file.size)


def _check_space(files: list[HubFile], target: Path) -> None:
    """OutputError before the first byte, rather than after hours."""
    needed = sum(missing_bytes(file, target / file.path) for file in files)
    free = shutil.disk_usage(target).free
    if needed > free:
        raise OutputError(
            f"{target} has {free / 1e9:.1f} GB free, but {needed / 1e9:.1f} GB are to be fetched: "
            "free some, or name a folder on another disk with `stepvideo download MODEL DIR`"
        )


def _finish(
    target: Path, model: str, hub: Hub, revision: str | None, folders: Collection[str] | None
) -> None:
    before: dict[str, Any] = {}
    if (target / MARKER).is_file():
        before = read_json(target / MARKER)
    had = before.get("folders", [])
    # Folders come together in several downloads; a whole model stays whole.
    whole = folders is None or (bool(before) and had is None)
    write_json(
        target / MARKER,
        {
            "model": model,
            "hub": hub,
            "revision": revision,
            "folders": None if whole else sorted({*had, *(folders or ())}),
        },
    )


def _locked(target: Path) -> Any:
    try:
        target.mkdir(parents=True, exist_ok=True)
        return FileLock(target / ".stepvideo-download.lock").acquire(timeout=0)
    except Timeout:
        raise DownloadFailed(f"another process is fetching a model into {target}") from None
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror or error}") from error
