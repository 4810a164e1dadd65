"""`stepvideo train all` from nothing to a bundle that `stepvideo run` takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from stepvideo_core.checkpoints.layout import CheckpointLayout
from stepvideo_core.cli.app import app
from stepvideo_core.config import TINY
from stepvideo_core.pipeline import StepVideoPipeline
from stepvideo_eval.novelty import learnt_thumbnails
from stepvideo_training.checkpoint import read_snapshot, snapshot_files
from stepvideo_training.recipes import averages

CONFIG = """
model = "tiny"
data.num_frames = 1
data.height = 32
data.width = 32
[vae]
held_out_clips = 1
run.save_every = 1
[[vae.stages]]
steps = 1
batch_size = 2
num_frames = [1]
[text]
run.precision = "float32"
[[text.stages]]
steps = 1
batch_size = 4
[dit]
num_clips = 4
held_out_clips = 2
run.evaluate_every = 1
run.log_every = 1
[[dit.stages]]
steps = 1
batch_size = 4
"""


def test_from_nothing_to_a_model_that_runs(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    config = tmp_path / "c.toml"
    config.write_text(CONFIG)
    folder = tmp_path / "training"
    command = ["train", "all", "--config", str(config), "-o", str(folder), "--json"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    bundle = folder / "bundle"
    assert json.loads(done.stdout)["bundle"] == str(bundle)
    layout = CheckpointLayout(bundle)
    assert layout.is_trained
    assert layout.config == TINY
    assert layout.settings["training"]["steps"] == {"vae": 1, "text": 1, "dit": 1}
    learnt = learnt_thumbnails(layout.settings["training"], count=99)
    assert learnt is not None and len(list(learnt)) == 4
    assert sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file()) < 20e6
    # What is written is the average, rounded to bfloat16.
    trained = averages(read_snapshot(snapshot_files(folder / "dit")[0]), "transformer.")
    with_source = layout.open("transformer")
    for key in ("proj_out.weight", "pos_embed.proj.weight"):
        assert torch.equal(with_source.read(key), trained[key].bfloat16())
    pipe = StepVideoPipeline.from_pretrained(bundle)
    video = pipe("a red circle moves right", frames=1, height=32, width=32, steps=1)
    assert video.frames.shape == (1, 32, 32, 3)
    # The latents are kept for the same autoencoder, and an occupied bundle is not overwritten.
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 2
    assert "a folder with files in it" in again.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("everything",), "cannot train 'everything'"),
        (("vae", "--config", "none"), "there is no such file"),
        (("dit",), "run `stepvideo train text` first"),
        (("bundle",), "run `stepvideo train vae` first"),
    ],
)
def test_mistakes(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    done = CliRunner().invoke(app, ["train", *arguments, "-o", str(tmp_path)])
    assert done.exit_code == 2
    assert words in " ".join(done.output.split())
