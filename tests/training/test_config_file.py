"""Configs are read strictly; what ships is readable and trains what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepvideo_core.errors import InvalidRequest
from stepvideo_training.config_file import load_config, shipped_configs
from stepvideo_training.settings import TrainingConfig


def write(folder: Path, text: str) -> str:
    path = folder / "c.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_shipped_configs_are_complete() -> None:
    assert "tiny" in shipped_configs()
    for name in shipped_configs():
        config = load_config(name)
        assert config.vae.stages
        assert config.text.stages
        assert config.dit.stages


def test_values_reach_their_place(tmp_path: Path) -> None:
    text = """
        seed = 7
        [vae.run]
        precision = "float32"
        optimizer.momentum = 0.5
        [[vae.stages]]
        steps = 3
        num_frames = [1, 17]
        lr = 1
    """
    config = load_config(write(tmp_path, text))
    assert config.seed == 7
    assert config.vae.run.optimizer.momentum == 0.5
    (stage,) = config.vae.stages
    assert (stage.steps, stage.num_frames, stage.lr) == (3, (1, 17), 1.0)
    assert config.dit == TrainingConfig().dit


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sede = 1", "unknown key 'sede'"),
        ("[vae.run]\nema = 1.0", "vae: run: unknown key 'ema'"),
        ("[[dit.stages]]\nsteps = 1\n[[dit.stages]]\nstep = 1", r"stages\[1\]: unknown key 'step'"),
        ("seed = 1.5", "seed is 1.5, but must be of type int"),
        ("seed = -1", "must not be negative"),
        ("seed = true", "must be of type int"),
        ("[vae]\nstages = 3", "must be a list"),
        ("vae = 3", "must be a table"),
        ('[vae.run]\nprecision = "half"', "must be one of 'float32', 'bfloat16'"),
        ("[vae.run]\nema_decay = nan", "must be a finite number"),
        ('model = "huge"', "model 'huge' is none of"),
        ("seed = ", "not valid TOML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, words: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InvalidRequest, match=words) as caught:
        load_config(path)
    assert path in str(caught.value)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(InvalidRequest, match=r"nothing.toml: there is no such file; shipped are"):
        load_config("nothing.toml")
