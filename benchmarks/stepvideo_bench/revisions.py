"""Measuring two git revisions: their sources are unpacked beside one another and take turns."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stepvideo_core.errors import InvalidRequest, StepVideoError

_ROOTS = ("", "backends", "kernels", "benchmarks")


def is_revision(text: str, repository: Path) -> bool:
    """Whether git knows a commit by this name."""
    done = _git(repository, "rev-parse", "--verify", "--quiet", f"{text}^{{commit}}")
    return done.returncode == 0


def unpack(revision: str, repository: Path, folder: Path) -> Path:
    """The tracked files of a revision, in `folder`; the repository itself is left as it is."""
    done = _git(repository, "archive", "--format=tar", revision)
    if done.returncode:
        raise InvalidRequest(f"git cannot unpack {revision!r}: {done.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    if not (folder / "stepvideo_core" / "cli" / "bench_ops.py").is_file():
        raise InvalidRequest(f"revision {revision!r} has no `stepvideo bench ops` to measure with")
    return folder


def measure_revisions(
    folders: Sequence[Path],
    arguments: Sequence[str],
    rounds: int,
    on_round: Callable[[str], None] = lambda text: None,
) -> list[dict[str, Any]]:
    """One pooled record per folder: `rounds` runs each, in turn, so that drift meets both alike."""
    records: list[list[dict[str, Any]]] = [[] for _ in folders]
    for turn in range(rounds):
        for index, folder in enumerate(folders):
            on_round(f"round {turn + 1} of {rounds}, {folder.name}")
            records[index].append(_run(folder, arguments))
    return [pooled(runs) for runs in records]


def pooled(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The first record with the samples of all of them; rows are the same in each."""
    first, *others = records
    for other in others:
        for row, more in zip(first["rows"], other["rows"], strict=True):
            row["samples"] = [*row["samples"], *more["samples"]]
        for name in ("gemm_samples", "copy_samples"):
            first["ceilings"][name] = [*first["ceilings"][name], *other["ceilings"][name]]
    return first


def _run(folder: Path, arguments: Sequence[str]) -> dict[str, Any]:
    path = os.pathsep.join(str(folder / root) for root in _ROOTS)
    done = subprocess.run(
        [sys.executable, "-m", "stepvideo_core.cli", "bench", "ops", "--json", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path},
        check=False,
    )
    try:
        record: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise StepVideoError(f"`bench ops` of {folder.name} failed: {last[0]}") from None
    return record


def _git(repository: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            ["git", "-C", str(repository), *arguments], capture_output=True, check=False
        )
    except FileNotFoundError:
        raise InvalidRequest("comparing revisions needs git, which is not installed") from None
