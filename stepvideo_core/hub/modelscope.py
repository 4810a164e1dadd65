"""ModelScope, through its own library where that is installed: it resumes and verifies itself."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection
from pathlib import Path

from stepvideo_core.checkpoints.layout import SHARED_FOLDERS
from stepvideo_core.errors import DownloadFailed

_PACKAGE = "modelscope"


def download(model: str, target: Path, folders: Collection[str] | None) -> None:
    """Fetch a model, or these of its folders only, into `target`.

    Raises DownloadFailed if the library is not installed, or if it fails.
    """
    if importlib.util.find_spec(_PACKAGE) is None:
        raise DownloadFailed(
            "--hub modelscope needs the modelscope package: pip install modelscope, or leave --hub "
            "out to take the Hugging Face hub"
        )
    from modelscope import snapshot_download

    taken = ("scheduler", "transformer", *SHARED_FOLDERS) if folders is None else folders
    patterns = [f"{folder}/*" for folder in taken]
    if folders is None:
        patterns += ["model_index.json", "stepvideo.json", "LICENSE*"]
    try:
        snapshot_download(model, local_dir=str(target), allow_patterns=patterns)
    # It documents no exceptions of its own.
    except Exception as error:
        raise DownloadFailed(
            f"{model} cannot be fetched from ModelScope ({type(error).__name__}: {error}): check "
            "the name and the connection; what has arrived is kept"
        ) from error
