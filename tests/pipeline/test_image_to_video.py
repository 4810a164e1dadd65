"""Image-to-video: the official run, and that the image reaches the video."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from stepvideo_core import StepVideoPipeline
from stepvideo_core.checkpoints.untrained import write_untrained
from stepvideo_core.config import TINY_TI2V
from stepvideo_core.errors import InvalidRequest, NotEnoughMemory
from stepvideo_core.image import fit, read_image
from stepvideo_core.progress import StageLog
from stepvideo_core.sampling import image_noise_generator, initial_noise
from stepvideo_core.video import to_uint8

GOLDEN_NOISE_SEED = 1014
"""The official run drew the posterior's noise with this seed of torch."""

QUICK: dict[str, Any] = {"frames": 17, "height": 32, "width": 48, "steps": 2}


def relative(result: Tensor, truth: Tensor) -> float:
    return float((result - truth).abs().max() / truth.abs().max())


@pytest.fixture(scope="module")
def official(golden: Callable[[str], Path]) -> tuple[StepVideoPipeline, dict[str, Tensor], Any]:
    folder = golden("pipeline_ti2v")
    pipe = StepVideoPipeline.from_pretrained(folder, dtype=torch.float32, device="cpu")
    data = load_file(folder / "golden.safetensors")
    call = json.loads((folder / "golden.json").read_text()) | {"folder": folder}
    return pipe, data, call


def official_seed() -> int:
    """The seed of ours whose image noise is the official run's: changing a seed twice undoes it."""
    return GOLDEN_NOISE_SEED ^ image_noise_generator(0).initial_seed()


def test_the_condition(official: tuple[StepVideoPipeline, dict[str, Tensor], Any]) -> None:
    pipe, data, call = official
    settings, _ = pipe.settings(
        call["prompt"],
        image=call["folder"] / call["first_image"],
        frames=call["num_frames"],
        height=call["height"],
        width=call["width"],
        seed=official_seed(),
    )
    condition = pipe.encode_image(settings, StageLog(pipe.device))
    assert condition is not None
    assert relative(condition, data["condition_hidden_states"][:1]) < 1e-5
    assert not condition[:, 1:].any()


def test_end_to_end(official: tuple[StepVideoPipeline, dict[str, Tensor], Any]) -> None:
    pipe, data, call = official
    result = pipe(
        call["prompt"],
        image=call["folder"] / call["first_image"],
        motion_score=call["motion_score"],
        steps=call["num_inference_steps"],
        cfg_scale=call["guidance_scale"],
        time_shift=call["time_shift"],
        latents=data["init_latents"],
        seed=official_seed(),
    )
    assert relative(result.latents, data["final_latents"]) < 1e-4
    difference = (result.frames.int() - data["video_u8"].int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() <= 0.001
    record = result.record["settings"]
    assert record["positive_suffix"] == call["pos_magic"]
    assert record["negative_prompt"] == call["neg_magic"]
    assert record["image"] == {
        "source": str(call["folder"] / call["first_image"]),
        "width": 150,
        "height": 100,
        "sha256": read_image(call["folder"] / call["first_image"]).sha256,
    }
    json.dumps(result.record)


def test_defaults(official: tuple[StepVideoPipeline, dict[str, Tensor], Any]) -> None:
    pipe, _, call = official
    image = call["folder"] / call["first_image"]
    settings, notes = pipe.settings("a cat", image=image)
    assert (settings.num_frames, settings.num_steps, settings.motion_score) == (102, 50, 5.0)
    assert (settings.cfg_scale, settings.time_shift) == (9.0, 13.0)
    assert any("is enlarged" in text for text in notes)
    with pytest.raises(InvalidRequest, match="give it the first frame"):
        pipe.settings("a cat")


@pytest.fixture(scope="module")
def tiny_ti2v(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny-ti2v"
    write_untrained(folder, TINY_TI2V, preset="tiny-ti2v")
    return folder


def picture(seed: int) -> Image.Image:
    """Smooth colours, so that scaling changes little."""
    small = np.random.default_rng(seed).integers(0, 255, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((96, 64), Image.Resampling.BICUBIC)


def test_what_changes_the_video(tiny_ti2v: Path) -> None:
    pipe = StepVideoPipeline.from_pretrained(tiny_ti2v)
    base = pipe("a red circle", image=picture(0), seed=5, **QUICK)
    same = pipe("a red circle", image=read_image(picture(0)).pixels_CHW, seed=5, **QUICK)
    assert torch.equal(base.frames, same.frames)
    assert [row["name"] for row in base.record["stages"]] == [
        *("Step-LLM", "CLIP", "image", "load DiT", "denoise", "decode")
    ]
    for changed in (
        pipe("a red circle", image=picture(1), seed=5, **QUICK),
        pipe("a red circle", image=picture(0), seed=5, motion_score=20, **QUICK),
    ):
        assert relative(changed.latents, base.latents) > 0.01


def test_the_image_sample_follows_the_seed_and_is_not_the_noise(tiny_ti2v: Path) -> None:
    pipe = StepVideoPipeline.from_pretrained(tiny_ti2v)

    def condition(seed: int) -> Tensor:
        settings, _ = pipe.settings("a", image=picture(0), seed=seed, **QUICK)
        result = pipe.encode_image(settings, StageLog(pipe.device))
        assert result is not None
        return result

    assert torch.equal(condition(5), condition(5))
    assert not torch.equal(condition(5), condition(6))
    for seed in (0, 5, 2**40 + 5, 2**63 - 1):
        noise = initial_noise((1, 1, 8, 2, 3), seed, dtype=torch.float32)
        sample = torch.randn(noise.shape, generator=image_noise_generator(seed))
        assert (noise - sample).abs().min() > 0


def _copies_the_condition(model: Path) -> None:
    """Make the transformer predict condition - latents, so that one step arrives at the condition.

    The embedding writes the difference, which the blocks leave alone, and its negative, so that the
    mean is zero, beside two large opposite values, which make the final LayerNorm a division by a
    constant that the last layer undoes.
    """
    file = model / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = {key: torch.zeros(value.shape) for key, value in load_file(file).items()}
    channels, dim, large = 8, TINY_TI2V.transformer.dim, 1024.0
    for channel in range(channels):
        for row, sign in ((channel, 1), (channels + channel, -1)):
            tensors["pos_embed.proj.weight"][row, channel] = -sign
            tensors["pos_embed.proj.weight"][row, channels + channel] = sign
        tensors["proj_out.weight"][channel, channel] = large * (2 / dim) ** 0.5
    tensors["pos_embed.proj.bias"][100], tensors["pos_embed.proj.bias"][101] = large, -large
    save_file(tensors, file)


def test_a_model_that_copies_its_condition_shows_the_image(tmp_path: Path) -> None:
    """What can be said of untrained weights: with a transformer that copies the condition, the
    first frame is the given image as the VAE gives it back, and another image's is not."""
    write_untrained(tmp_path / "model", TINY_TI2V, preset="tiny-ti2v")
    _copies_the_condition(tmp_path / "model")
    pipe = StepVideoPipeline.from_pretrained(tmp_path / "model")
    size = QUICK | {"frames": 1, "steps": 1, "cfg_scale": 1.0}
    result = pipe("a red circle", image=picture(0), seed=3, **size)

    def through_the_vae(image: Image.Image) -> tuple[Tensor, Tensor]:
        pixels_CHW = fit(read_image(image), 32, 48)
        with torch.inference_mode():
            vae: Any = pipe.residency.load("vae")
            latents = vae.encode(pixels_CHW[None, None]).sample(image_noise_generator(3))
            frames = to_uint8(vae.decode(latents)[0])
        pipe.residency.release("vae")
        return latents, frames

    latents, frames = through_the_vae(picture(0))
    assert relative(result.latents, latents) < 1e-3
    assert (result.frames.int() - frames.int()).abs().max() <= 2
    other_latents, other_frames = through_the_vae(picture(1))
    assert relative(result.latents, other_latents) > 0.05
    assert (result.frames.int() - other_frames.int()).abs().max() > 2


def test_memory_of_the_image_stage(tiny_ti2v: Path) -> None:
    pipe = StepVideoPipeline.from_pretrained(tiny_ti2v)
    settings, _ = pipe.settings("a", image=picture(0), **QUICK)
    needs = {need.name: need for need in pipe.needs(settings)}
    assert list(needs) == ["step_llm", "clip", "image", "transformer", "vae"]
    assert needs["image"].weights == needs["vae"].weights
    assert 0 < needs["image"].activations < needs["vae"].activations
    with pytest.raises(NotEnoughMemory):
        pipe("a", image=picture(0), memory_limit="1MiB", **QUICK)
