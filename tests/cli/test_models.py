"""`--model` with folders that share their parts, and `stepvideo download`, as a user meets them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from .conftest import Cli

SHARED = ("vae", "step_llm", "hunyuan_clip")
QUICK = ("--frames", 1, "--height", 32, "--width", 48)


@pytest.fixture
def turbo(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A transformer of its own, nothing else, as Turbo is published."""
    root = tmp_path / "stepvideo-t2v-turbo"
    shutil.copytree(tiny_checkpoint, root)
    (root / "stepvideo.json").unlink()
    for name in SHARED:
        shutil.rmtree(root / name)
    return root


def test_turbo_beside_its_base_model(cli: Cli, turbo: Path, tiny_checkpoint: Path) -> None:
    alone = cli("run", "a", "--model", turbo, *QUICK, "--dry-run")
    assert alone.code == 2
    assert "has no vae, step_llm, hunyuan_clip: put the checkpoint that it" in alone.complaint
    base = turbo.parent / "stepvideo-t2v"
    base.symlink_to(tiny_checkpoint)
    done = cli("run", "a", "--model", turbo, *QUICK, "--dry-run", "--json")
    assert done.code == 0, done.stderr
    assert f"stepvideo-t2v-turbo has no vae, step_llm, hunyuan_clip: taken from {base}" in (
        done.stderr
    )
    settings = done.json["settings"]
    assert (settings["num_steps"], settings["cfg_scale"], settings["time_shift"]) == (15, 5, 17)
    assert cli("inspect", turbo, "--json").json["ok"] is True


def test_shared_and_preset(cli: Cli, turbo: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    renamed = turbo.rename(tmp_path / "my-model")
    given = ("run", "a", "--model", renamed, *QUICK, "--dry-run", "--json")
    done = cli(*given, "--shared", tiny_checkpoint)
    assert done.json["settings"]["num_steps"] == 50
    done = cli(*given, "--shared", tiny_checkpoint, "--preset", "turbo")
    assert done.json["settings"]["num_steps"] == 15
    wrong = cli(*given, "--shared", tmp_path)
    assert "has no vae, step_llm, hunyuan_clip either" in wrong.complaint
    named = renamed.rename(tmp_path / "x-turbo")
    done = cli(*given[:3], named, *given[4:], "--shared", tiny_checkpoint, "--preset", "t2v")
    assert done.json["settings"]["num_steps"] == 50


def test_a_turbo_run_makes_a_video(
    cli: Cli, turbo: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    options = ("--shared", tiny_checkpoint, "--steps", 1, "-o", tmp_path / "v.safetensors")
    done = cli("run", "a red circle", "--model", turbo, *QUICK, *options)
    assert done.code == 0, done.stderr
    assert (tmp_path / "v.safetensors").is_file()
    # Resuming needs the shared parts as well.
    assert cli("decode", tmp_path / "v.safetensors", "-o", tmp_path / "w.gif").code == 0


def test_download_refuses_what_is_no_id(cli: Cli) -> None:
    done = cli("download", "tiny")
    assert "'tiny' is not the id of a model" in done.complaint


def test_a_model_that_is_not_here(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    examined = cli("plan", "--model", "nobody/stepvideo-x")
    assert examined.complaint.endswith("`stepvideo download nobody/stepvideo-x`")
    done = cli("run", "a", "--model", "nobody/stepvideo-x")
    assert done.code == 2
    assert "nobody/stepvideo-x is not on this machine, and http://127.0.0.1:9" in done.complaint
