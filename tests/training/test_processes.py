"""Two processes with sharded parameters learn what one learns."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from stepvideo_training.checkpoint import snapshot_files
from stepvideo_training.processes import Processes
from tests.training.small import TRAINERS

ROOT = Path(__file__).resolve().parents[2]
STEPS = 5


def losses(folder: Path) -> list[float]:
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [row["loss"] for row in map(json.loads, lines) if row["kind"] == "step"]


def test_two_processes_equal_one(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
            *("--master-addr", "127.0.0.1", "--master-port", str(port)),
            *("-m", "tests.training.small", "vae,dit", str(tmp_path / "two"), str(STEPS)),
        ],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for name, make in TRAINERS.items():
        one, two = tmp_path / "one" / name, tmp_path / "two" / name
        make(one, Processes(torch.device("cpu"))).run(until=STEPS)
        assert len(losses(one)) == STEPS
        assert losses(two) == pytest.approx(losses(one), rel=2e-3)
        assert losses(one)[0] != losses(one)[-1]
        alone, shared = (load_file(snapshot_files(folder)[0]) for folder in (one, two))
        assert alone.keys() == shared.keys()
        # Not element by element: where a gradient is only rounding, its direction is chance.
        names = [key for key in alone if key.startswith("ema.")]
        difference = sum(float((alone[key] - shared[key]).square().sum()) for key in names)
        moved = sum(float(alone[f"optimizer.first.{k[4:]}"].square().sum()) for k in names)
        size = sum(float(alone[key].square().sum()) for key in names)
        assert moved > 0
        assert (difference / size) ** 0.5 < 0.01
