"""One file from a hub to the disk: resumed where it stopped, verified, then given its name.

The hub libraries' own transfers start a file anew when the process was killed, which for files of
10 GB is no resuming.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from stepvideo_core.errors import DownloadFailed, OutputError
from stepvideo_core.hub.listing import HubFile

_BLOCK = 2**20
_TIMEOUT = 30.0
_MAX_FAILURES = 5
"""In a row, without a byte between them."""
_FIRST_PAUSE = 0.25
_WORTH_ANOTHER_TRY = {408, 416, 429, 500, 502, 503, 504}


def part_path(file: HubFile, target: Path) -> Path:
    """Where the beginning of a file waits for its rest; another content is another part."""
    return target.with_name(f".{target.name}.{file.checksum[:16]}.part")


def missing_bytes(file: HubFile, target: Path) -> int:
    """How much of a file is still to be fetched."""
    return (
        0
        if _size(target) == file.size
        else file.size - min(_size(part_path(file, target)), file.size)
    )


def fetch_file(
    file: HubFile, target: Path, headers: Mapping[str, str], on_bytes: Callable[[int], None]
) -> None:
    """Download `file` to `target`, unless a file of its size is there.

    on_bytes: called with the size of each block that arrives. Raises DownloadFailed if the server
    refuses or the connection is lost for good, in which case what has arrived is kept, or if the
    content is not what the hub's checksum says; OutputError if the disk is full.
    """
    if _size(target) == file.size:
        return
    part = part_path(file, target)
    with _disk_errors(part):
        part.parent.mkdir(parents=True, exist_ok=True)
    failures = 0
    while (before := _size(part)) < file.size or not part.exists():
        try:
            _receive(file, part, headers, on_bytes)
        except (OSError, http.client.HTTPException) as error:
            code = error.code if isinstance(error, urllib.error.HTTPError) else None
            failures = 0 if _size(part) > before else failures + 1
            if (code is not None and code not in _WORTH_ANOTHER_TRY) or failures >= _MAX_FAILURES:
                raise DownloadFailed(
                    f"{file.url} cannot be fetched ({error}): check the connection and run the "
                    "same command again; what has arrived is kept"
                ) from error
            time.sleep(_FIRST_PAUSE * 2**failures)
    problem = checksum_problem(file, part)
    if problem is not None:
        part.unlink()
        raise DownloadFailed(
            f"{target}: what was fetched {problem}; it was removed, run the same command again"
        )
    with _disk_errors(target):
        os.replace(part, target)


def checksum_problem(file: HubFile, path: Path) -> str | None:
    """How the content of `path` differs from what the hub says of it; None if it does not."""
    if _size(path) != file.size:
        return f"has {_size(path):,} bytes instead of {file.size:,}"
    if file.sha256 is not None:
        digest, wanted = hashlib.sha256(), file.sha256
    elif file.git_sha1 is not None:
        # A git object's id is the checksum of its content behind this header.
        digest, wanted = hashlib.sha1(f"blob {file.size}\0".encode()), file.git_sha1
    else:
        return None
    with path.open("rb") as content:
        while block := content.read(_BLOCK):
            digest.update(block)
    return None if digest.hexdigest() == wanted else f"does not have the hub's checksum {wanted}"


def _receive(
    file: HubFile, part: Path, headers: Mapping[str, str], on_bytes: Callable[[int], None]
) -> None:
    """Append to `part` what is missing of it; returns early if the server stops early."""
    start = _size(part)
    request = urllib.request.Request(file.url)
    for name, value in headers.items():
        # Tokens are for the hub, not for the storage that it redirects to.
        request.add_unredirected_header(name, value)
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink(missing_ok=True)
        raise
    with response:
        resumed = response.status == http.client.PARTIAL_CONTENT
        if start and not resumed:
            on_bytes(-start)  # this server begins again
        with _disk_errors(part):
            output = part.open("ab" if resumed else "wb")
        with output:
            while block := response.read1(_BLOCK):
                with _disk_errors(part):
                    output.write(block)
                    output.flush()
                on_bytes(len(block))
    if _size(part) < file.size:
        raise http.client.IncompleteRead(b"", file.size - _size(part))


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """So that a full disk is not taken for a lost connection."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}; what has arrived is kept, run "
            "the same command again when there is room"
        ) from error


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
