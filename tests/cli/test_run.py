"""`stepvideo run` and `decode`, as a user meets them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from stepvideo_core.video import read_metadata

from .conftest import Cli


def test_the_official_pipeline_from_the_command_line(
    cli_process: Cli, golden: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = golden("pipeline_t2v")
    data = load_file(folder / "golden.safetensors")
    call = json.loads((folder / "golden.json").read_text())
    noise = tmp_path / "noise.safetensors"
    save_file({"latents": data["init_latents"]}, noise)
    output = tmp_path / "x.safetensors"
    done = cli_process(
        "run",
        *("--model", folder, "--prompt", call["prompt"], "--latents", noise),
        *("--steps", 4, "--cfg-scale", 9, "--time-shift", 13, "--dtype", "float32"),
        *("--output", output),
    )
    assert done.code == 0, done.stderr
    result = load_file(output)
    truth = data["final_latents"]
    assert (result["latents"] - truth).abs().max() / truth.abs().max() < 1e-4
    difference = (result["frames"].int() - data["video_u8"].int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() <= 0.001


def test_json_says_all(cli: Cli, quick: list[str], tmp_path: Path) -> None:
    output = tmp_path / "v.mp4"
    done = cli("run", "a red circle", *quick, "--seed", 9, "--json", "--output", output)
    assert done.code == 0, done.stderr
    result = done.json
    assert result["output"] == str(output)
    assert result["seed"] == 9
    assert {"op", "site", "impl", "reasons"} <= set(result["plan"][0])
    assert set(result["timings"]) == {
        "Step-LLM",
        "CLIP",
        "load DiT",
        "denoise",
        "decode",
        "total",
    }
    assert result["peak_memory"]["host"] > 2**20
    assert result["trained"] is False
    assert "untrained" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v.mp4", "v.mp4.json"]
    assert read_metadata(output)["settings"]["prompt"] == "a red circle"


def test_the_same_seed_gives_the_same_video(cli: Cli, quick: list[str], tmp_path: Path) -> None:
    frames = []
    for name in ("a", "b"):
        output = tmp_path / f"{name}.safetensors"
        assert cli("run", "a red circle", *quick, "-o", output).code == 0
        frames.append(load_file(output)["frames"])
    assert torch.equal(*frames)


@pytest.mark.parametrize("name", ["v.webm", "v.gif", "frames", "v.safetensors"])
def test_formats(cli: Cli, quick: list[str], tmp_path: Path, name: str) -> None:
    assert cli("run", "a red circle", *quick, "--output", tmp_path / name).code == 0
    assert (tmp_path / name).exists()
    if name == "frames":
        assert len(list((tmp_path / name).glob("*.png"))) == 17


def test_saved_latents_resume_to_the_same_frames(
    cli: Cli, quick: list[str], tmp_path: Path
) -> None:
    whole = tmp_path / "whole.safetensors"
    assert cli("run", "a red circle", *quick, "-o", whole, "--keep-latents").code == 0
    latents = tmp_path / "whole.latents.safetensors"
    assert latents.exists()
    resumed = tmp_path / "resumed.safetensors"
    done = cli("decode", latents, "--output", resumed)
    assert done.code == 0, done.stderr
    assert torch.equal(load_file(resumed)["frames"], load_file(whole)["frames"])
    assert read_metadata(resumed)["settings"]["prompt"] == "a red circle"
    assert cli("decode", whole, "-o", tmp_path / "again.mp4", "--json").code == 0


def test_default_output_is_named_after_the_prompt(
    cli: Cli, quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli("run", '一只猫: "a/b"\\c?', *quick).code == 0
    assert (tmp_path / "outputs" / "一只猫-a-b-c-1234.mp4").exists()


def test_prompt_file(cli: Cli, quick: list[str], tmp_path: Path) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text("\n一只红色的圆 \n", encoding="utf-8")
    done = cli("run", "--prompt-file", file, *quick, "--dry-run", "--json")
    assert done.json["settings"]["prompt"] == "一只红色的圆"


def test_dry_run_says_what_and_whether_it_fits(cli: Cli, quick: list[str], tmp_path: Path) -> None:
    output = tmp_path / "v.mp4"
    done = cli("run", "a red circle", *quick, "-o", output, "--dry-run", "--json")
    assert done.code == 0
    names = [row["name"] for row in done.json["memory"]]
    assert names == ["step_llm", "clip", "transformer", "vae"]
    assert done.json["fits"] is True
    tight = cli("run", "a", *quick, "-o", output, "--dry-run", "--memory-limit", "3MiB")
    assert tight.code == 2
    assert "--memory-limit allows 3 MiB" in tight.complaint
    assert "no" in tight.stdout
    assert list(tmp_path.iterdir()) == []


def test_rounding_is_said(cli: Cli, quick: list[str], tmp_path: Path) -> None:
    done = cli("run", "a", *quick, "--frames", 20, "-o", tmp_path / "v.mp4", "--dry-run")
    assert "note: 20 frames rounded down to 17" in done.stderr


def test_shadow_prints_a_table(cli: Cli, quick: list[str], tmp_path: Path) -> None:
    options = ["--frames", 1, "--shadow", "numpy64", "-o", tmp_path / "v.gif"]
    done = cli("run", "a red circle", *quick, *options)
    assert done.code == 0
    row = next(line for line in done.stdout.splitlines() if "dit.self" in line)
    assert "reference:sdpa" in row and "numpy64:rowwise" in row
    assert "vae.mid" in done.stdout, "decoding is shadowed as well"


def test_op_override_reaches_the_run(cli: Cli, quick: list[str], tmp_path: Path) -> None:
    op = "attention@dit.self=numpy64"
    done = cli("run", "a", *quick, "--op", op, "-o", tmp_path / "v.gif", "--json")
    impls = {(row["op"], row["site"]): row["impl"] for row in done.json["plan"]}
    assert impls["attention", "dit.self"] == "numpy64:rowwise"
    assert impls["attention", "dit.cross"] == "reference:sdpa"


def test_no_colour_codes_beyond_a_terminal(cli_process: Cli, quick: list[str]) -> None:
    done = cli_process("run", "a red circle", *quick, "--dry-run")
    assert done.code == 0
    assert "\x1b" not in done.stdout + done.stderr
