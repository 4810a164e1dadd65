"""JSON in, files out: small things that every reader and writer of checkpoints needs."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stepvideo_core.errors import CheckpointError, OutputError


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; CheckpointError says where it breaks."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing") from None
    except json.JSONDecodeError as error:
        raise CheckpointError(
            f"{path} is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a JSON {type(value).__name__}, not an object")
    return value


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON object as the official files have it: keys sorted, two spaces, UTF-8.

    Makes the folder if need be; raises OutputError if that or the file cannot be written.
    """
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    with _output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """A temporary name beside `target` that becomes `target` when the block ends well.

    Keeps the suffix, so that writers which look at it work. Raises OutputError if the folder
    cannot be written or the disk is full; nothing is left behind then.
    """
    with _output_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f".{target.stem}-", suffix=f".part{target.suffix}", dir=target.parent
        )
        os.close(handle)
        # mkstemp makes private files; the result should be readable like any other output.
        os.chmod(name, 0o666 & ~_umask())
    temporary = Path(name)
    try:
        with _output_errors(target):
            yield temporary
            os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """A temporary folder that becomes `target` when the block ends well.

    `target` must not exist or be an empty folder, OutputError otherwise; with `replace`, a folder
    that is there goes when the new one is complete, and not before.
    """
    if not (replace and target.is_dir()):
        check_free_folder(target)
    with _output_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-part-", dir=target.parent))
        os.chmod(temporary, 0o777 & ~_umask())
    try:
        with _output_errors(target):
            yield temporary
            _put_in_place(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _put_in_place(folder: Path, target: Path) -> None:
    """Rename a folder to `target`; what is there is put back if that fails, and else deleted."""
    if not target.exists():
        os.replace(folder, target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent)) / target.name
    os.replace(target, old)
    try:
        os.replace(folder, target)
    except OSError:
        os.replace(old, target)
        raise
    finally:
        shutil.rmtree(old.parent, ignore_errors=True)


def check_free_folder(target: Path) -> None:
    """OutputError unless a folder can be created at `target` without touching anything there."""
    if target.is_dir():
        if any(target.iterdir()):
            raise OutputError(f"{target} is a folder with files in it; name a new or empty one")
    elif target.exists():
        raise OutputError(f"{target} exists and is no folder; name another one")


@contextlib.contextmanager
def _output_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{target} cannot be written: {reason}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
