"""`stepvideo convert` as a user meets it."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from .conftest import Cli

_FILE = Path("transformer") / "diffusion_pytorch_model.safetensors"


def test_there_and_back(cli: Cli, tiny_checkpoint: Path, tmp_path: Path) -> None:
    mm, back = tmp_path / "mm", tmp_path / "back"
    done = cli("convert", "hf-to-mm", tiny_checkpoint, mm, "--tp", 3, "--pp", "1,2", "--json")
    assert done.code == 0, done.stderr
    assert done.json["output"] == str(mm / "release")
    assert [Path(file).parent.name for file in done.json["files"]] == [
        f"mp_rank_{rank:02}_{stage:03}" for stage in range(2) for rank in range(3)
    ]
    assert done.json["peak_memory"]["host"] > 0
    assert cli("convert", "resplit", mm, tmp_path / "one").code == 0
    done = cli("convert", "mm-to-hf", tmp_path / "one", back)
    assert done.code == 0
    assert str(back / "transformer") in done.stderr
    one, other = load_file(tiny_checkpoint / _FILE), load_file(back / _FILE)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_dry_run_lists_and_writes_nothing(
    cli: Cli, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    arguments = ["convert", "hf-to-mm", tiny_checkpoint, tmp_path / "mm", "--tp", 3, "--dry-run"]
    listed = cli(*arguments, "--dtype", "float32")
    assert listed.code == 0
    lines = [line.split() for line in listed.stdout.splitlines()]
    name = "transformer_blocks.1.attn1.proj_qkv.weight"
    assert ["mp_rank_01/model_optim_rng.pt", name, "[240,", "240]", "float32"] in lines
    assert "would write" in listed.stderr
    described = cli(*arguments, "--json").json
    (tensor,) = [t for t in described["files"][1]["tensors"] if t["name"] == name]
    assert tensor == {"name": name, "shape": [240, 240], "dtype": "bfloat16"}
    assert described["bytes"] == sum(
        torch.Size(t["shape"]).numel() * 2 for file in described["files"] for t in file["tensors"]
    )
    assert list(tmp_path.iterdir()) == []


def test_mistakes(cli: Cli, tiny_checkpoint: Path, tmp_path: Path) -> None:
    target = tmp_path / "mm"
    done = cli("convert", "hf-to-mm", tiny_checkpoint, target, "--tp", 2)
    assert done.code == 2
    assert "--tp 2 does not divide the 3 attention heads" in done.complaint
    assert "no checkpoint folder" in cli("convert", "hf-to-mm", tmp_path / "x", target).complaint
    assert "no training checkpoint" in cli("convert", "mm-to-hf", tmp_path, target).complaint
    assert list(tmp_path.iterdir()) == []
    assert cli("convert", "hf-to-mm", tiny_checkpoint, target).code == 0
    again = ["convert", "hf-to-mm", tiny_checkpoint, target]
    assert "replace it with --force" in cli(*again).complaint
    assert cli(*again, "--force").code == 0
