"""A whole run from the command line on the interpreted backend, against the reference."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from stepvideo_core.checkpoints.untrained import write_untrained
from stepvideo_core.config import TINY

# One block and one frame: an interpreted kernel takes a tenth of a second and more.
SMALL = replace(TINY, transformer=replace(TINY.transformer, num_layers=1))
SIZE = ("--frames", "1", "--height", "32", "--width", "16", "--steps", "1")


def _run(model: Path, output: Path, *options: str) -> dict[str, object]:
    command = ("run", "a red circle", "--model", str(model), *SIZE, "--json")
    done = subprocess.run(
        [sys.executable, "-m", "stepvideo_core.cli", *command, *options, "-o", str(output)],
        capture_output=True,
        text=True,
        env=os.environ | {"STEPVIDEO_CUDA_INTERPRET": "1", "TRITON_INTERPRET": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, object] = json.loads(done.stdout)
    return result


def test_a_whole_run_equals_the_reference(tmp_path: Path) -> None:
    model = tmp_path / "model"
    write_untrained(model, SMALL)
    record = _run(model, tmp_path / "cuda.safetensors", "--backend", "cuda", "--no-fallback")
    rows = record["plan"]
    assert isinstance(rows, list) and len(rows) > 15
    assert {row["impl"].split(":")[0] for row in rows} == {"cuda"}
    _run(model, tmp_path / "reference.safetensors", "--backend", "reference")
    ours, theirs = (load_file(tmp_path / f"{name}.safetensors") for name in ("cuda", "reference"))
    scale = theirs["latents"].abs().max()
    assert (ours["latents"] - theirs["latents"]).abs().max() / scale < 2e-5
    difference = (ours["frames"].int() - theirs["frames"].int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() <= 0.001
    assert theirs["frames"].float().std() > 1, "a constant frame would prove nothing"
    assert torch.equal(torch.tensor(ours["frames"].shape), torch.tensor([1, 32, 16, 3]))


# Without decoding, which takes the interpreter four fifths of a run.
_LATENTS = """
import sys
import torch
from safetensors.torch import save_file
from stepvideo_core import StepVideoPipeline
from stepvideo_core.progress import StageLog

model, output, *colours = sys.argv[1:]
results = {}
for backend in ("cuda", "reference"):
    pipe = StepVideoPipeline.from_pretrained(
        model, backend=backend, allow_fallback=backend != "cuda", dtype=torch.float32
    )
    for colour in colours[: 1 if backend == "cuda" else 2]:
        image = torch.full((3, 16, 16), float(colour))
        settings, _ = pipe.settings(
            "a red circle", image=image, frames=1, height=16, width=16, steps=1, cfg_scale=1.0
        )
        log = StageLog(pipe.device)
        text, condition = pipe.encode_text(settings, log), pipe.encode_image(settings, log)
        results[f"{backend}:{colour}"] = pipe.sample_latents(settings, text, log, None, condition)
save_file(results, output)
"""


def test_an_image_reaches_the_latents_on_both_paths(tmp_path: Path) -> None:
    model, output = tmp_path / "model", tmp_path / "latents.safetensors"
    ti2v = replace(SMALL.transformer, use_additional_conditions=True)
    write_untrained(model, replace(SMALL, transformer=ti2v), preset="tiny-ti2v")
    done = subprocess.run(
        [sys.executable, "-c", _LATENTS, str(model), str(output), "-0.5", "0.5"],
        capture_output=True,
        text=True,
        env=os.environ | {"STEPVIDEO_CUDA_INTERPRET": "1", "TRITON_INTERPRET": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    results = load_file(output)
    dark, light = results["reference:-0.5"], results["reference:0.5"]
    scale = dark.abs().max()
    assert (results["cuda:-0.5"] - dark).abs().max() / scale < 2e-5
    assert (light - dark).abs().max() / scale > 0.01
