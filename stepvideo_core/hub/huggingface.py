"""The Hugging Face hub, or a mirror of it that HF_ENDPOINT names: listing, and its own cache."""

from __future__ import annotations

import os
from pathlib import Path

from stepvideo_core import __version__
from stepvideo_core.errors import DownloadFailed
from stepvideo_core.hub.listing import HubFile, Listing

_PUBLIC = "https://huggingface.co"


def endpoint() -> str:
    """Where the hub is, without a slash at the end."""
    return os.environ.get("HF_ENDPOINT", _PUBLIC).rstrip("/")


def list_model(model: str) -> Listing:
    """The files of a model at its newest revision, with sizes and checksums.

    Raises DownloadFailed if there is no such model, it may not be read, or the hub is out of reach.
    """
    from huggingface_hub import HfApi, get_token, hf_hub_url
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    where = endpoint()
    try:
        info = HfApi(endpoint=where).model_info(model, files_metadata=True, timeout=30)
    except GatedRepoError:
        raise DownloadFailed(
            f"{model} asks for consent: accept its terms at {where}/{model}, then log in with "
            "`hf auth login`"
        ) from None
    except (RepositoryNotFoundError, HFValidationError):
        raise DownloadFailed(
            f"there is no model {model} at {where}, and no folder of that name here"
        ) from None
    except OfflineModeIsEnabled:
        raise DownloadFailed(
            f"{model} is not on this machine and HF_HUB_OFFLINE forbids fetching it: unset it, or "
            "give --model the folder of a checkpoint"
        ) from None
    # The library's HTTP client has changed with its versions, and its exceptions with it; whatever
    # it raises, the hub has not answered.
    except Exception as error:
        raise DownloadFailed(
            f"{model} is not on this machine, and {where} cannot be reached ({error}): check the "
            "connection, or give --model the folder of a checkpoint"
        ) from error
    revision = info.sha or "main"
    files = tuple(
        HubFile(
            path=sibling.rfilename,
            size=sibling.size or 0,
            url=hf_hub_url(model, sibling.rfilename, revision=revision, endpoint=where),
            sha256=sibling.lfs.sha256 if sibling.lfs else None,
            git_sha1=None if sibling.lfs else sibling.blob_id,
        )
        for sibling in info.siblings or ()
    )
    headers = {"User-Agent": f"stepvideo/{__version__}"}
    token = get_token()
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    return Listing(model=model, revision=revision, files=files, headers=headers)


def cached_snapshot(model: str) -> Path | None:
    """What another tool has put into the hub's own cache; None if nothing. Asks no server."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(model, local_files_only=True))
    except (OSError, HFValidationError):  # LocalEntryNotFoundError is a FileNotFoundError
        return None
