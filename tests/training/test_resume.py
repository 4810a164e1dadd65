"""A killed training goes on as if nothing had happened; a damaged checkpoint costs little."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load

from stepvideo_core.errors import CheckpointError, InvalidRequest, NumericalFailure
from stepvideo_training.checkpoint import snapshot_files
from stepvideo_training.log import TrainingLog
from stepvideo_training.loop import Trainer
from stepvideo_training.processes import Processes
from tests.training.small import RUN, VAE_STAGES, vae_trainer

ROOT = Path(__file__).resolve().parents[2]
ALONE = Processes(torch.device("cpu"))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    # Sums are taken in another order by another number of threads.
    torch.set_num_threads(1)


def state(folder: Path) -> dict[str, torch.Tensor]:
    # Read at once: a test that damages the file would damage a memory map too.
    return load(snapshot_files(folder)[0].read_bytes())


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert different == []


def test_a_killed_training_goes_on_bit_by_bit(tmp_path: Path) -> None:
    killed, whole = tmp_path / "vae", tmp_path / "whole"
    command = [sys.executable, "-m", "tests.training.small", "vae", str(tmp_path)]
    child = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not snapshot_files(killed) and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    _, errors = child.communicate()
    assert child.returncode == -signal.SIGKILL, errors.decode()
    resumed = vae_trainer(killed, ALONE)
    assert resumed.step >= 2
    last = resumed.step + 5
    resumed.run(until=last)
    straight = vae_trainer(whole, ALONE)
    straight.run(until=last)
    assert_same(state(killed), state(whole))
    assert any(name.startswith("optimizer.first.") for name in state(whole))


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "vae"
    vae_trainer(folder, ALONE).run(until=4)
    before = state(folder)
    newest, older = snapshot_files(folder)
    content = bytearray(newest.read_bytes())
    content[-100] ^= 1
    newest.write_bytes(content)
    trainer = vae_trainer(folder, ALONE)
    assert trainer.step == 2
    messages = [row["text"] for row in rows(folder) if row["kind"] == "message"]
    assert any(
        f"{newest} is damaged" in text and "the checkpoint before" in text for text in messages
    )
    trainer.run(until=4)
    assert_same(state(folder), before)
    for path in snapshot_files(folder):
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* is intact"):
        vae_trainer(folder, ALONE)
    assert older.name == "step-00000002.safetensors"


def test_only_so_many_checkpoints_are_kept(tmp_path: Path) -> None:
    vae_trainer(tmp_path, ALONE, keep=2).run(until=7)
    names = [path.name for path in snapshot_files(tmp_path)]
    assert names == ["step-00000007.safetensors", "step-00000006.safetensors"]
    assert not list(tmp_path.glob(".*"))


def rows(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_the_log_has_a_row_per_step(tmp_path: Path) -> None:
    vae_trainer(tmp_path, ALONE, evaluate_every=2).run(until=3)
    steps = [row for row in rows(tmp_path) if row["kind"] == "step"]
    assert [row["step"] for row in steps] == [1, 2, 3]
    assert {"loss", "reconstruction", "kl", "psnr", "grad_norm", "lr"} <= steps[0].keys()
    evaluations = [row for row in rows(tmp_path) if row["kind"] == "evaluation"]
    assert [row["step"] for row in evaluations] == [2]
    assert "psnr" in evaluations[0]


def test_pieces_make_the_same_step(tmp_path: Path) -> None:
    """Accumulating half batches gives the gradient of the whole batch."""
    results = []
    for pieces in (1, 2):
        trainer = vae_trainer(tmp_path / str(pieces), ALONE)
        stage = trainer.stages[0]
        trainer.stages = (type(stage)(**{**vars(stage), "edge_weight": 0.0, "accumulate": pieces}),)
        trainer.run(until=1)
        results.append(state(tmp_path / str(pieces)))
    for name, value in results[0].items():
        if name.startswith("optimizer.first."):
            scale = value.abs().max().clamp_min(1e-6)
            assert (value - results[1][name]).abs().max() / scale < 1e-3, name


def test_another_model_is_refused(tmp_path: Path) -> None:
    vae_trainer(tmp_path, ALONE).run(until=2)
    good = vae_trainer(tmp_path, ALONE)
    with pytest.raises(CheckpointError, match="train into another folder"):
        Trainer(
            good.task,
            VAE_STAGES,
            RUN,
            seed=1,
            folder=tmp_path,
            processes=ALONE,
            log=TrainingLog(None),
            identity={"sizes": [3]},
        )


def test_a_batch_must_be_divisible(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="a batch of 4 cannot be divided"):
        vae_trainer(tmp_path, Processes(torch.device("cpu"), 0, 3))


def test_a_loss_that_is_not_finite_stops_the_training(tmp_path: Path) -> None:
    trainer = vae_trainer(tmp_path, ALONE)
    with torch.no_grad():
        next(iter(trainer.parameters.values())).fill_(float("nan"))
    with pytest.raises(NumericalFailure, match="the loss is nan at step 0"):
        trainer.run(until=2)
    assert snapshot_files(tmp_path) == []
