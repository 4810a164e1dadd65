"""A user's mistake is one clear sentence and exit code 2; nothing is half-written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from .conftest import Cli


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy that may be broken."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "model"))


def _truncate(model: Path) -> None:
    file = model / "transformer" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _wrong_shape(model: Path) -> None:
    file = model / "vae" / "vae_v2.safetensors"
    tensors = load_file(file)
    tensors["decoder.norm_out.weight"] = torch.ones(7, dtype=torch.bfloat16)
    save_file(tensors, file)


def _missing_tensor(model: Path) -> None:
    file = model / "step_llm" / "model.safetensors"
    tensors = load_file(file)
    del tensors["tok_embeddings.word_embeddings.weight"]
    save_file(tensors, file)


def _missing_shard(model: Path) -> None:
    folder = model / "transformer"
    single = folder / "diffusion_pytorch_model.safetensors"
    shard = "diffusion_pytorch_model-00001-of-00002.safetensors"
    other = shard.replace("00001-of", "00002-of")
    keys = list(load_file(single))
    single.rename(folder / shard)
    names = {key: shard if index else other for index, key in enumerate(keys)}
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))


def _broken_json(model: Path) -> None:
    (model / "transformer" / "config.json").write_text('{"num_layers": 3,,}')


def _no_tokenizer(model: Path) -> None:
    (model / "step_llm" / "step1_chat_tokenizer.model").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, "diffusion_pytorch_model.safetensors is not a complete safetensors file"),
        (_wrong_shape, "decoder.norm_out.weight (in vae_v2.safetensors) is [7] but must be [64]"),
        (_missing_tensor, "tok_embeddings.word_embeddings.weight missing"),
        (_missing_shard, "1 of 2 shards are missing"),
        (_broken_json, "config.json is not valid JSON"),
        (_no_tokenizer, "step1_chat_tokenizer.model is missing"),
    ],
)
def test_broken_checkpoints(
    cli: Cli, checkpoint: Path, tmp_path: Path, damage: Any, message: str
) -> None:
    damage(checkpoint)
    output = tmp_path / "out" / "v.mp4"
    size = ["--frames", 17, "--height", 32, "--width", 48, "--steps", 1]
    done = cli("run", "a red circle", "--model", checkpoint, *size, "--output", output)
    assert done.code == 2
    assert message in done.complaint
    leftovers = list(output.parent.glob("*")) if output.parent.exists() else []
    assert [path for path in leftovers if not path.name.endswith(".latents.safetensors")] == []
    # What was finished before the broken part was met is kept, and the message says so.
    assert bool(leftovers) == ("resume with: stepvideo decode" in done.complaint)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is no prompt"),
        ([""], "the prompt is empty"),
        (["   "], "the prompt is empty"),
        (["星" * 10_000], "tokens but the model reads 318"),
        (["a", "--prompt", "b"], "give the prompt once"),
        (["a", "--frames", "0"], "--frames 0"),
        (["a", "--height", "100"], "--height 100 is not a multiple of 16: use 96 or 112"),
        (["a", "--steps", "0"], "--steps 0"),
        (["a", "--output", "v.avi"], "v.avi"),
        (["a", "--output", "/proc/v.mp4"], "/proc/v.mp4"),
        (["a", "--latents", "absent.safetensors"], "absent.safetensors is missing"),
        (["a", "--prompt-file", "absent.txt"], "give the prompt once"),
        (["--prompt-file", "absent.txt"], "absent.txt cannot be read"),
        (["a", "--backend", "cudda"], "no backend 'cudda'"),
        (["a", "--op", "attention"], "is not OP[@SITE]=BACKEND[:IMPL]"),
        (["a", "--op", "attention@dit.slef=reference"], "meets no call site"),
        (["a", "--op", "attention=reference:flash"], "has no attention:flash"),
        (["a", "--device", "cuda:3"], "torch sees no accelerator"),
        (["a", "--memory-limit", "lots"], "--memory-limit 'lots'"),
        (["a", "--memory-limit", "1MiB"], "--memory-limit allows 1 MiB"),
        (["a", "--image", "x.png"], "--image: this is a text-to-video model, which takes none"),
        (["a", "--motion-score", "5"], "--motion-score: this is a text-to-video model"),
        (["a", "--offload", "stream"], "--offload stream: layer streaming is not"),
        (["a", "--model", "absent"], "there is no checkpoint folder absent"),
        (["a", "--model", "."], "holds no Step-Video checkpoint"),
        (["a", "--model", "t2v"], "only 'tiny' ships with stepvideo"),
    ],
)
def test_bad_requests(
    cli: Cli,
    quick: list[str],
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "cuda:3" in arguments and torch.accelerator.is_available():
        pytest.skip("this machine has an accelerator")
    monkeypatch.chdir(tmp_path)
    done = cli("run", *quick, *arguments)
    assert done.code == 2, done.stderr
    assert message in done.complaint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "this is an image-to-video model: give it the first frame with --image FILE"),
        (["--image", "absent.png"], "image absent.png is missing"),
        (["--image", "text.png"], "image text.png is no picture that can be read"),
        (["--image", "ok.png", "--motion-score", "-1"], "--motion-score -1.0: give a number from"),
        (["--image", "ok.png", "--motion-score", "nan"], "--motion-score nan: give a number from"),
    ],
)
def test_bad_requests_of_an_image_to_video_model(
    cli: Cli,
    golden: Callable[[str], Path],
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.png").write_text("not an image")
    Image.new("RGB", (64, 48)).save("ok.png")
    done = cli("run", "a", "--model", golden("pipeline_ti2v"), *arguments, "--output", "v.mp4")
    assert done.code == 2
    assert message in done.complaint
    assert not (tmp_path / "v.mp4").exists()


def test_an_unknown_option_is_a_users_mistake(cli: Cli) -> None:
    done = cli("run", "a", "--heigth", 64)
    assert done.code == 2
    assert "--heigth" in done.stderr
    assert "Traceback" not in done.stderr


def test_latents_that_are_no_latents(cli: Cli, quick: list[str], tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    save_file({"noise": torch.zeros(2)}, file)
    done = cli("run", "a", *quick[:2], "--latents", file)
    assert done.complaint.endswith("holds no tensor 'latents', only noise")
    save_file({"latents": torch.zeros(1, 3, 5, 2, 2)}, file)
    assert "needs [1, F, 8, h, w]" in cli("run", "a", *quick[:2], "--latents", file).complaint
    save_file({"latents": torch.full((1, 3, 8, 2, 2), torch.inf)}, file)
    assert "contain NaN" in cli("run", "a", *quick[:2], "--latents", file).complaint
    file.write_bytes(b"\x00" * 100)
    assert "is not a complete safetensors" in cli("run", "a", "--latents", file).complaint
    assert cli("decode", file).code == 2


def test_latents_without_a_record_need_a_model(
    cli: Cli, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    file = tmp_path / "x.safetensors"
    save_file({"latents": torch.zeros(1, 1, 8, 2, 2)}, file)
    assert "name it with --model" in cli("decode", file).complaint
    assert cli("decode", file, "--model", tiny_checkpoint).code == 0
    assert (tmp_path / "x.mp4").exists()
    own = cli("decode", file, "--model", tiny_checkpoint, "--output", file)
    assert "is the latents file itself" in own.complaint


_INTERRUPT = """
import os, signal
from stepvideo_core.cli import console
begin = console.ProgressObserver.begin
def interrupting(self, name, total, unit):
    begin(self, name, total, unit)
    if name == {stage!r}:
        os.kill(os.getpid(), signal.{signal})
console.ProgressObserver.begin = interrupting
"""


@pytest.mark.parametrize("stage", ["Step-LLM", "CLIP", "load DiT", "denoise", "decode"])
def test_ctrl_c_in_each_stage(
    cli: Cli, cli_process: Cli, quick: list[str], tmp_path: Path, stage: str
) -> None:
    output = tmp_path / "v.safetensors"
    prelude = _INTERRUPT.format(stage=stage, signal="SIGINT")
    done = cli_process("run", "a red circle", *quick, "-o", output, prelude=prelude)
    assert done.code == 130, done.stderr
    left = [path.name for path in tmp_path.iterdir()]
    if stage != "decode":
        assert done.complaint == f"interrupted during {stage}; nothing was written"
        assert left == []
        return
    assert left == ["v.latents.safetensors"]
    assert "resume with: stepvideo decode" in done.complaint
    assert cli("decode", tmp_path / left[0], "--output", output).code == 0
    whole = tmp_path / "whole.safetensors"
    assert cli("run", "a red circle", *quick, "-o", whole).code == 0
    assert torch.equal(load_file(output)["frames"], load_file(whole)["frames"])


def test_termination_cleans_up(cli_process: Cli, quick: list[str], tmp_path: Path) -> None:
    prelude = _INTERRUPT.format(stage="decode", signal="SIGTERM")
    done = cli_process("run", "a", *quick, "-o", tmp_path / "v.mp4", prelude=prelude)
    assert done.code == 143
    assert [path.name for path in tmp_path.iterdir()] == ["v.latents.safetensors"]


_FULL_DISK = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
"""


def test_a_disk_that_is_full_before_decoding(
    cli_process: Cli, quick: list[str], tmp_path: Path
) -> None:
    """Not even the latents fit: the message names the file, and nothing is left."""
    prelude = _FULL_DISK.format(limit=100)
    done = cli_process("run", "a", *quick, "-o", tmp_path / "v.mp4", prelude=prelude)
    assert done.code == 2, done.stderr
    assert "cannot be written" in done.complaint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["v.mp4", "v.safetensors", "frames"])
def test_a_disk_that_fills_up_while_decoding(
    cli_process: Cli, quick: list[str], tmp_path: Path, name: str
) -> None:
    """The latents fit, the video does not: they are kept, and the message says how to resume."""
    prelude = _FULL_DISK.format(limit=12_000)
    size = ["--height", 96, "--width", 96]
    done = cli_process("run", "a", *quick, *size, "-o", tmp_path / name, prelude=prelude)
    assert done.code == 2, done.stderr
    assert "resume with: stepvideo decode" in done.complaint
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(".latents.safetensors")


def test_a_bug_keeps_its_traceback(cli_process: Cli, quick: list[str], tmp_path: Path) -> None:
    prelude = """
    from stepvideo_core import pipeline
    def broken(*args, **kwargs):
        raise ZeroDivisionError("planted")
    pipeline.denoise = broken
    """
    done = cli_process("run", "a", *quick, "-o", tmp_path / "v.mp4", prelude=prelude)
    assert done.code == 1
    assert "ZeroDivisionError: planted" in done.stderr
    assert list(tmp_path.iterdir()) == []
