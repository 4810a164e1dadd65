"""Settings: defaults, rounding with a note, refusals with a reason."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stepvideo_core.config import (
    STEP_VIDEO_T2V,
    STEP_VIDEO_T2V_TURBO,
    STEP_VIDEO_TI2V,
    TINY,
)
from stepvideo_core.errors import InvalidRequest
from stepvideo_core.request import build_settings


def test_official_defaults() -> None:
    settings, notes = build_settings(STEP_VIDEO_T2V, "a fox", {})
    assert notes == []
    assert (settings.num_frames, settings.height, settings.width) == (204, 544, 992)
    assert (settings.num_steps, settings.cfg_scale, settings.time_shift) == (50, 9.0, 13.0)
    assert settings.full_prompt.startswith("a fox超高清、HDR 视频")
    assert settings.negative_prompt.startswith("画面暗")
    assert settings.latent_shape(STEP_VIDEO_T2V.vae) == (1, 36, 64, 34, 62)
    turbo, _ = build_settings(STEP_VIDEO_T2V_TURBO, "a fox", {})
    assert (turbo.num_steps, turbo.cfg_scale, turbo.time_shift) == (15, 5.0, 17.0)
    image = torch.zeros(3, 544, 992)
    ti2v, notes = build_settings(STEP_VIDEO_TI2V, "a fox", {"image": image})
    assert (ti2v.num_frames, ti2v.motion_score, notes) == (102, 5.0, [])


def test_empty_strings_switch_the_magic_off() -> None:
    settings, _ = build_settings(
        STEP_VIDEO_T2V, "a fox", {"positive_suffix": "", "negative_prompt": ""}
    )
    assert settings.full_prompt == "a fox"
    assert settings.negative_prompt == ""


@pytest.mark.parametrize(
    ("frames", "rounded"), [(1, 1), (2, 1), (16, 1), (17, 17), (18, 17), (33, 17), (205, 204)]
)
def test_frames_round_down_with_a_note(frames: int, rounded: int) -> None:
    settings, notes = build_settings(TINY, "a fox", {"frames": frames})
    assert settings.num_frames == rounded
    assert len(notes) == (frames != rounded)
    if notes:
        assert f"{frames} frames rounded down to {rounded}" in notes[0]


@given(frames=st.integers(1, 1000))
def test_frames_and_latents_agree(frames: int) -> None:
    settings, _ = build_settings(STEP_VIDEO_T2V, "a fox", {"frames": frames})
    vae = STEP_VIDEO_T2V.vae
    assert settings.num_frames == vae.pixel_frames(settings.latent_shape(vae)[1])
    assert settings.num_frames <= frames


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"prompt": ""}, "the prompt is empty"),
        ({"prompt": " \n\t"}, "the prompt is empty"),
        ({"frames": 0}, "--frames 0: a video has at least one frame"),
        ({"frames": -17}, "--frames -17"),
        ({"height": 540}, "--height 540 is not a multiple of 16: use 528 or 544"),
        ({"width": 8}, "--width 8 is not a multiple of 16: use 16"),
        ({"width": 0}, "--width 0 is not"),
        ({"steps": 0}, "--steps 0"),
        ({"cfg_scale": -1.0}, "--cfg-scale -1.0"),
        ({"cfg_scale": math.nan}, "--cfg-scale nan"),
        ({"time_shift": 0.0}, "--time-shift 0.0"),
        ({"time_shift": math.inf}, "--time-shift inf"),
        ({"seed": -1}, "--seed -1"),
        ({"latent_shape": (1, 6, 9, 4, 6)}, r"needs \[1, F, 8, h, w\]"),
        ({"latent_shape": (2, 6, 8, 4, 6)}, "--latents has shape"),
        ({"latent_shape": (1, 8, 4, 6)}, "--latents has shape"),
        ({"latent_shape": (1, 6, 8, 4, 6), "frames": 17}, "--frames 17 contradicts --latents"),
        ({"latent_shape": (1, 6, 8, 4, 6), "width": 64}, "means 96"),
    ],
)
def test_refusals(choices: dict[str, Any], message: str) -> None:
    arguments = {"prompt": "a fox"} | choices
    with pytest.raises(InvalidRequest, match=message):
        build_settings(TINY, arguments.pop("prompt"), arguments)


def test_latents_decide_the_size() -> None:
    settings, _ = build_settings(TINY, "a fox", {"latent_shape": (1, 3, 8, 4, 6)})
    assert (settings.num_frames, settings.height, settings.width) == (17, 64, 96)


def test_a_setting_that_does_not_exist_is_a_bug_of_the_caller() -> None:
    with pytest.raises(TypeError, match="there is no setting heigth"):
        build_settings(TINY, "a fox", {"heigth": 64})  # type: ignore[typeddict-unknown-key]
