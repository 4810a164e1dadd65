"""`stepvideo eval` as a user meets it: what it writes, says, keeps and refuses."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from stepvideo_core.latents_file import write_latents
from stepvideo_eval import generate
from stepvideo_eval.adherence import ATTRIBUTES

from .conftest import Cli

PROMPTS = """# what a toy model and a real one are asked
a red circle moves right on a white background

一个蓝色的方块静止不动
a red fox in the snow
"""


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text(PROMPTS, encoding="utf-8")
    return path


def proportions(value: Any) -> list[dict[str, Any]]:
    """Every proportion somewhere in a report."""
    if isinstance(value, dict):
        inner = [each for child in value.values() for each in proportions(child)]
        return [value, *inner] if "interval95" in value else inner
    if isinstance(value, list):
        return [each for child in value for each in proportions(child)]
    return []


def test_a_prompt_file(cli: Cli, quick: list[str], prompts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    done = cli("eval", *quick, "--prompts", prompts, "--seeds", 2, "--seed", 5, "-o", folder)
    assert done.code == 0, done.stderr
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    generation = report["generation"]
    results = generation["results"]
    assert [row["seed"] for row in results] == [5, 6, 7, 8, 9, 10]
    assert [row["language"] for row in results] == ["en", "en", "zh", "zh", None, None]
    assert generation["settings"]["num_steps"] == 2 and "seed" not in generation["settings"]
    for row in results:
        with av.open(str(folder / row["video"])) as video:
            assert sum(1 for _ in video.decode(video=0)) == 17
    with Image.open(folder / generation["sheets"][0]) as sheet:
        assert sheet.width > 6 * 96 and sheet.height > 6 * 64

    judged = generation["adherence"]
    assert (judged["judged"], judged["not_judged"]) == (4, 2)
    assert judged["by_attribute"]["colour"]["count"] == 4
    assert judged["by_attribute"]["background"]["count"] == 2
    assert set(judged["by_attribute"]) == {"count", "colour", "shape", "motion", "background"}
    assert {each["overall"]["count"] for each in judged["by_language"].values()} == {2}
    assert set(judged["by_value"]["shape"]) == {"circle", "square"}
    assert "the world's grammar does not know" in results[4]["not_judged_because"]
    found = proportions(report)
    assert len(found) > 10
    for each in found:
        low, high = each["interval95"]
        assert 0 <= low <= each["successes"] / each["count"] <= high <= 1
    assert generation["diversity"] > 0
    assert generation["smoothness"]["mean"] > 0
    assert generation["smoothness"]["seam_ratio"] is None
    assert {"fingerprint", "versions", "plan", "dtype", "device", "trained"} <= set(report)

    assert "the adherence of 2 of 6 videos was not judged: the judge sees" in done.stderr
    assert "this model is untrained" in done.stderr
    assert done.stderr.rstrip().endswith("report.json")
    for attribute in judged["by_attribute"]:
        assert f"\n{attribute} " in done.stdout
    assert "95 % interval" in done.stdout


def test_a_video_can_be_made_again_by_itself(
    cli: Cli, quick: list[str], prompts: Path, tmp_path: Path
) -> None:
    """What the report says of a video is enough for `stepvideo run`."""
    report = cli("eval", *quick, "--prompts", prompts, "-o", tmp_path / "e", "--json").json
    row = report["generation"]["results"][1]
    alone = tmp_path / "alone.safetensors"
    assert cli("run", row["prompt"], *quick, "--seed", row["seed"], "-o", alone).code == 0
    name = Path(row["video"]).stem
    kept = load_file(tmp_path / "e" / "latents" / f"{name}.safetensors")["latents"]
    assert (load_file(alone)["latents"] - kept).abs().max() < 1e-5


def test_an_interrupted_call_goes_on(
    cli: Cli, quick: list[str], prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, whole = tmp_path / "out", tmp_path / "whole"

    def interrupting(path: Path, latents: Tensor, record: dict[str, Any]) -> None:
        write_latents(path, latents, record)
        if path.name.startswith("0002"):
            os.kill(os.getpid(), signal.SIGINT)

    arguments = ["eval", *quick, "--prompts", prompts]
    with monkeypatch.context() as patch:
        patch.setattr(generate, "write_latents", interrupting)
        done = cli(*arguments, "-o", folder)
    assert done.code == 130, done.stderr
    assert f"interrupted; 2 sampled videos are kept in {folder}" in done.complaint
    assert len(list((folder / "latents").iterdir())) == 2
    first = min((folder / "latents").iterdir())
    written = first.stat().st_mtime_ns
    resumed = cli(*arguments, "-o", folder)
    assert resumed.code == 0, resumed.stderr
    assert "2 of 3 videos were sampled by an earlier call" in resumed.stderr
    assert first.stat().st_mtime_ns == written
    assert cli(*arguments, "-o", whole).code == 0
    reports = [json.loads((each / "report.json").read_text()) for each in (folder, whole)]
    assert reports[0]["generation"] == reports[1]["generation"]

    other = cli(*arguments, "--cfg-scale", 2, "-o", folder)
    assert other.code == 2
    assert "was made with another model or other settings: name a new --output" in other.complaint


def test_held_out_prompts_without_text_and_reconstruction(
    cli: Cli, quick: list[str], tmp_path: Path
) -> None:
    what = ["--held-out", 2, "--language", "zh", "--unconditional", 2, "--references", 5]
    what += ["--reconstruct", "held-out", "--clips", 2]
    done = cli("eval", *quick, *what, "--frames", 34, "-o", tmp_path / "out", "--json")
    assert done.code == 0, done.stderr
    report = done.json
    assert report == json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    generation, bare = report["generation"], report["unconditional"]
    assert generation["adherence"]["judged"] == 2
    assert set(generation["adherence"]["by_language"]) == {"zh"}
    assert generation["not_judged_because"] is None
    assert generation["smoothness"]["seam_ratio"] > 0
    assert generation["diversity"] is None
    assert bare["settings"]["cfg_scale"] == 1.0 and bare["settings"]["positive_suffix"] == ""
    assert bare["novelty"]["references"] == 5 and len(bare["novelty"]["distances"]) == 2
    assert bare["diversity"] > 0
    section = report["reconstruction"]
    assert section["clips"] == len(section["results"]) == 2
    assert section["psnr_lowest"] <= section["psnr"] < 20
    assert section["adherence"]["overall"] == {
        "successes": 0,
        "count": 2,
        "rate": 0.0,
        "interval95": [0.0, pytest.approx(0.658, abs=1e-3)],
    }
    assert set(section["adherence"]["by_attribute"]) <= set(ATTRIBUTES)
    for sheet in (*generation["sheets"], *bare["sheets"], *section["sheets"]):
        assert (tmp_path / "out" / sheet).is_file()


def test_reconstruction_of_a_folder_skips_what_is_no_video(
    cli: Cli, quick: list[str], tmp_path: Path
) -> None:
    videos = tmp_path / "videos"
    assert cli("run", "a red circle", *quick, "-o", videos / "good.mp4").code == 0
    assert cli("run", "a red circle", *quick, "-o", videos / "moving.gif").code == 0
    (videos / "broken.mp4").write_bytes((videos / "good.mp4").read_bytes()[:300])
    (videos / "notes.txt").write_text("no video")
    done = cli("eval", *quick, "--reconstruct", videos, "-o", tmp_path / "out", "--json")
    assert done.code == 0, done.stderr
    section = done.json["reconstruction"]
    assert "generation" not in done.json
    assert [row["name"] for row in section["results"]] == ["good.mp4", "moving.gif"]
    assert section["adherence"] is None
    assert all(math.isfinite(row["ssim"]) for row in section["results"])
    (skipped,) = section["skipped"]
    assert "broken.mp4 cannot be decoded" in skipped
    assert "skipped: " in done.stderr
    for name in ("good.mp4", "moving.gif"):
        (videos / name).unlink()
    done = cli("eval", *quick, "--reconstruct", videos, "-o", tmp_path / "none")
    assert (done.code, "none of the 1 videos" in done.complaint) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is nothing to measure"),
        (["--prompts", "absent.txt"], "--prompts absent.txt cannot be read"),
        (["--prompts", "empty.txt"], "--prompts empty.txt has no prompt"),
        (["--prompts", "empty.txt", "--held-out", "3"], "give either --prompts or --held-out"),
        (["--held-out", "1", "--language", "fr"], "--language 'fr': give en or zh"),
        (["--held-out", "1", "--language", "en,en"], "--language 'en,en'"),
        (["--held-out", "1", "--height", "40"], "--height 40 is not a multiple of 16"),
        (["--held-out", "1", "--output", "empty.txt"], "empty.txt is not a folder"),
        (["--reconstruct", "absent"], "--reconstruct absent is no folder"),
        (["--reconstruct", "."], "--reconstruct . has no videos"),
        (["--held-out", "1", "--op", "attention=reference:none"], "has no attention:none"),
    ],
)
def test_bad_requests(
    cli: Cli,
    quick: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("# only a comment\n\n", encoding="utf-8")
    done = cli("eval", *quick, *arguments)
    assert done.code == 2, done.stderr
    assert message in done.complaint
    assert [path.name for path in tmp_path.iterdir()] == ["empty.txt"]


def test_a_changed_weight_changes_the_digest(tiny_checkpoint: Path, tmp_path: Path) -> None:
    from stepvideo_core.checkpoints.layout import CheckpointLayout
    from stepvideo_core.fingerprint import weights_digest

    copy = Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))
    before = weights_digest(CheckpointLayout(copy))
    assert before == weights_digest(CheckpointLayout(tiny_checkpoint))
    file = copy / "vae" / "vae_v2.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert weights_digest(CheckpointLayout(copy)) != before
