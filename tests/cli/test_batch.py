"""Several prompts and seeds in one run: checked, named, resumed, summed up."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors.torch import load_file

from stepvideo_core import StepVideoPipeline
from stepvideo_core.checkpoints.untrained import write_untrained
from stepvideo_core.config import TINY_TI2V
from stepvideo_core.errors import NumericalFailure
from stepvideo_core.video import read_metadata

from .conftest import Cli

PROMPTS = "# a comment\na red circle\n\n  a blue square \n\\# is a prompt as well\n"
TEMPLATE = "{index}-{slug}-{seed}.safetensors"


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.txt"
    file.write_text(PROMPTS, encoding="utf-8")
    return file


@pytest.fixture
def small(quick: list[str]) -> list[str]:
    """One frame and one step."""
    return [*quick, "--frames", "1", "--steps", "1"]


def test_prompts_and_seeds(cli: Cli, small: list[str], prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("run", "--prompt-file", prompts, *small, "--num-seeds", 2, "--seed", 7)
    done = cli(*arguments, "-o", out / TEMPLATE, "--json")
    assert done.code == 0, done.stderr
    result = done.json
    assert (result["done"], result["present"], result["failed"]) == (6, 0, 0)
    rows = result["results"]
    texts = ((2, "a red circle"), (4, "a blue square"), (5, "# is a prompt as well"))
    assert [(row["line"], row["prompt"], row["seed"]) for row in rows] == [
        (line, prompt, seed) for line, prompt in texts for seed in (7, 8)
    ]
    assert Path(rows[0]["output"]).name == "1-a-red-circle-7.safetensors"
    assert done.stderr.count("Step-LLM:") == done.stderr.count("CLIP:") == 1, "loaded once"
    single = tmp_path / "single.safetensors"
    alone = cli("run", "a blue square", *small, "--seed", 8, "-o", single)
    assert alone.code == 0
    in_batch, by_itself = load_file(rows[3]["output"]), load_file(single)
    assert in_batch["frames"].equal(by_itself["frames"])
    assert in_batch["latents"].equal(by_itself["latents"])
    assert not in_batch["latents"].equal(load_file(rows[2]["output"])["latents"])
    assert not list(out.glob("*.latents.safetensors"))


def test_what_is_there_is_not_made_again(
    cli: Cli, small: list[str], prompts: Path, tmp_path: Path
) -> None:
    arguments = ("run", "--prompt-file", prompts, *small, "-o", tmp_path / TEMPLATE, "--json")
    first = cli(*arguments).json
    stamps = [Path(row["output"]).stat().st_mtime_ns for row in first["results"]]
    # One is damaged, one was made with other settings, and the third is as it should be.
    damaged, other, good = (Path(row["output"]) for row in first["results"])
    damaged.write_bytes(damaged.read_bytes()[:1000])
    assert cli("run", "a blue square", *small, "--seed", 99, "-o", other).code == 0
    again = cli(*arguments)
    assert [row["status"] for row in again.json["results"]] == ["done", "done", "present"]
    assert good.stat().st_mtime_ns == stamps[2]
    assert read_metadata(other)["seed"] == 1234
    assert load_file(damaged)["frames"].shape == (1, 32, 48, 3)
    third = cli(*arguments)
    assert third.json["present"] == 3
    assert "Step-LLM" not in third.stderr, "nothing is loaded for nothing"
    changed = cli(*arguments, "--cfg-scale", 3, "--dry-run")
    assert [row["state"] for row in changed.json["jobs"]] == ["todo"] * 3


_KILL = """
import os, signal
from stepvideo_core.cli import console
begin, seen = console.ProgressObserver.begin, []
def killing(self, name, total, unit):
    begin(self, name, total, unit)
    seen.append(name)
    if seen.count({stage!r}) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
console.ProgressObserver.begin = killing
"""


@pytest.mark.parametrize("stage", ["denoise", "decode"])
def test_a_killed_batch_goes_on(
    cli: Cli, cli_process: Cli, small: list[str], prompts: Path, tmp_path: Path, stage: str
) -> None:
    """Killed for real in the second video; what was finished, or only decoded, is not repeated."""
    out = tmp_path / "out"
    arguments = ("run", "--prompt-file", prompts, *small, "-o", out / TEMPLATE, "--json")
    killed = cli_process(*arguments, prelude=_KILL.format(stage=stage))
    assert killed.code == -signal.SIGKILL
    first = out / "1-a-red-circle-1234.safetensors"
    stamp = first.stat().st_mtime_ns
    states = [row["state"] for row in cli(*arguments, "--dry-run").json["jobs"]]
    assert states == ["present", "latents" if stage == "decode" else "todo", "todo"]
    done = cli(*arguments)
    assert done.code == 0, done.stderr
    assert [row["status"] for row in done.json["results"]] == ["present", "done", "done"]
    assert first.stat().st_mtime_ns == stamp
    assert done.stderr.count("denoise:") == (1 if stage == "decode" else 2)
    whole = tmp_path / "whole.safetensors"
    assert cli("run", "a blue square", *small, "-o", whole).code == 0
    second = load_file(out / "2-a-blue-square-1234.safetensors")
    assert second["frames"].equal(load_file(whole)["frames"])
    assert not list(out.glob("*.latents.safetensors"))


def test_ctrl_c_says_how_to_go_on(
    cli: Cli, small: list[str], prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample, seen = StepVideoPipeline.sample_latents, 0

    def interrupted(*arguments: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == 2:
            signal.raise_signal(signal.SIGINT)
        return sample(*arguments)

    monkeypatch.setattr(StepVideoPipeline, "sample_latents", interrupted)
    done = cli("run", "--prompt-file", prompts, *small, "-o", tmp_path / TEMPLATE)
    assert done.code == 130
    assert done.complaint.startswith("interrupted at video 2 of 3, 1 are finished: run the same")


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (NumericalFailure("planted"), "planted"),
        (RuntimeError("planted"), "RuntimeError: planted"),
    ],
)
def test_one_failure_does_not_end_the_batch(
    cli: Cli,
    small: list[str],
    prompts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: Exception,
    message: str,
) -> None:
    sample = StepVideoPipeline.sample_latents

    def failing(pipe: Any, settings: Any, *rest: Any) -> Any:
        if settings.prompt == "a blue square":
            raise failure
        return sample(pipe, settings, *rest)

    monkeypatch.setattr(StepVideoPipeline, "sample_latents", failing)
    done = cli("run", "--prompt-file", prompts, *small, "-o", tmp_path / TEMPLATE, "--json")
    assert done.code == 1
    assert f"error: video 2 (line 4): {message}" in done.stderr
    assert ("Traceback" in done.stderr) == isinstance(failure, RuntimeError)
    assert [row["status"] for row in done.json["results"]] == ["done", "failed", "done"]
    assert done.json["results"][1]["error"] == message


def test_the_summary_is_a_table(cli: Cli, small: list[str], prompts: Path, tmp_path: Path) -> None:
    done = cli("run", "--prompt-file", prompts, *small, "-o", tmp_path / TEMPLATE)
    assert done.code == 0
    assert len(done.stdout.splitlines()) == 4
    assert "3 done, 0 already there, 0 failed" in done.stderr


def write_lines(path: Path, *lines: object) -> Path:
    path.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    return path


def test_json_lines_set_their_own(cli: Cli, tmp_path: Path) -> None:
    write_untrained(tmp_path / "model", TINY_TI2V, preset="tiny-ti2v")
    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (48, 32), colour).save(tmp_path / name)
    size = {"frames": 1, "height": 32, "width": 48}
    file = write_lines(
        tmp_path / "p.jsonl",
        {"prompt": "a fox", "image": "a.png", "output": "fox", **size},
        {"prompt": "a cat", "image": "b.png", "motion_score": 20, "seeds": [1, 2], **size},
        {"prompt": "a fox", "image": "b.png", "seed": 1234, "negative_prompt": "", **size},
    )
    template = tmp_path / "out" / "{line}-{seed}.safetensors"
    shared = ("--model", tmp_path / "model", "--steps", 1, "--height", 64, "-o", template)
    done = cli("run", "--prompt-file", file, *shared, "--json")
    assert done.code == 0, done.stderr
    names = ["fox", "2-1", "2-2", "3-1234"]
    outputs = [Path(row["output"]) for row in done.json["results"]]
    assert outputs == [tmp_path / "out" / f"{name}.safetensors" for name in names]
    records = [read_metadata(output)["settings"] for output in outputs]
    assert [record["motion_score"] for record in records] == [5.0, 20.0, 20.0, 5.0]
    assert [record["height"] for record in records] == [32] * 4
    assert records[0]["image"]["source"] == str(tmp_path / "a.png")
    # Another image under the same name is another video; the same pixels are not.
    Image.new("RGB", (48, 32), "green").save(tmp_path / "a.png")
    Image.new("RGB", (48, 32), "blue").save(tmp_path / "b.png", optimize=True)
    states = [
        row["state"]
        for row in cli("run", "--prompt-file", file, *shared, "--dry-run", "--json").json["jobs"]
    ]
    assert states == ["todo", "present", "present", "present"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"prompt": "a", "sed": 1}'], "line 1: unknown key 'sed'; there are prompt, negative"),
        (['{"prompt": "a"}', "", "{"], "line 3: not valid JSON"),
        (['{"prompt": "a"}', '["b"]'], "line 2: holds a JSON list, not an object"),
        (['{"frames": 17}'], "line 1: has no prompt"),
        (['{"prompt": "a", "frames": "17"}'], 'frames is "17", but must be an integer'),
        (['{"prompt": "a", "frames": true}'], "frames is true, but must be an integer"),
        (['{"prompt": "a", "seeds": []}'], "seeds is [], but must be a list of integers"),
        (['{"prompt": "a", "seed": 1, "seeds": [2]}'], "has both seed and seeds"),
        (['{"prompt": "a"}', '{"prompt": "b", "height": 33}'], "line 2: --height 33 is not a"),
        (['{"prompt": "a", "image": "x.png"}'], "line 1: --image: this is a text-to-video model"),
        (['{"prompt": "a", "steps": 0}', '{"prompt": " "}'], "line 1: --steps 0: at least one "),
        (['{"prompt": "a", "steps": 0}', '{"prompt": " "}'], "; line 2: the prompt is empty"),
        (['{"prompt": "a", "output": "v"}'] * 2, "two videos would be written to"),
        (['{"prompt": "a", "output": "{sed}"}'], "has a field {sed}; there are {index}, {line}"),
        (['{"prompt": "a", "output": "{seed"}'], "is no template"),
        (["# nothing"], "holds no prompt"),
    ],
)
def test_every_line_is_checked_first(
    cli: Cli, small: list[str], tmp_path: Path, lines: list[str], message: str
) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text("\n".join(lines), encoding="utf-8")
    done = cli("run", "--prompt-file", file, *small, "-o", tmp_path / "out" / TEMPLATE)
    assert done.code == 2, done.stderr
    assert message in done.complaint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "1,x"], "--seeds '1,x' is no list of integers"),
        (["--seeds", "1,1"], "--seeds 1,1 names a seed twice"),
        (["--seeds", "1,2", "--seed", "3"], "--seeds stands alone"),
        (["--seeds", "1,2", "-o", "v.mp4"], "two videos would be written to v.mp4"),
        (["--seeds", "1,2", "-o", "{seed}.avi"], ".avi"),
        (["--seeds", "1,2", "--latents", "x.safetensors"], "--latents is the noise of one video"),
        (["--num-seeds", "2", "--memory-limit", "1MiB"], "--memory-limit allows 1 MiB"),
    ],
)
def test_bad_requests(
    cli: Cli,
    small: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli("run", "a", *small, *arguments)
    assert done.code == 2, done.stderr
    assert message in done.complaint
    assert os.listdir() == []


def test_folders_of_frames_are_recognised(cli: Cli, small: list[str], tmp_path: Path) -> None:
    arguments = ("run", "a", *small, "--seeds", "1,2", "-o", tmp_path / "{seed}", "--json")
    assert cli(*arguments).json["done"] == 2
    assert cli(*arguments).json["present"] == 2
    other = cli(*arguments, "--steps", 2)
    assert other.code == 2, "a folder with files in it is never emptied"
    assert "is a folder with files in it" in other.complaint


def test_somebody_elses_file_is_not_overwritten(cli: Cli, small: list[str], tmp_path: Path) -> None:
    mine = tmp_path / "2.gif"
    Image.new("RGB", (9, 9)).save(mine)
    done = cli("run", "a", *small, "--seeds", "1,2", "-o", tmp_path / "{seed}.gif")
    assert done.code == 2
    assert "2.gif exists and is no output of stepvideo" in done.complaint
    assert [path.name for path in tmp_path.iterdir()] == ["2.gif"]
