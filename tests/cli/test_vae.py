"""`stepvideo vae` as a user meets it, and the codec behind it."""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from stepvideo_core.checkpoints.layout import CheckpointLayout
from stepvideo_core.checkpoints.load import KEY_MAPS, load_weights
from stepvideo_core.dispatch import DispatchPlan, DispatchPolicy
from stepvideo_core.latents_file import read_latents
from stepvideo_core.models.vae import VideoVAE
from stepvideo_core.plugins import load_registry
from stepvideo_core.quality import psnr, ssim
from stepvideo_core.vae_codec import VAECodec
from stepvideo_core.video import open_writer, to_uint8
from stepvideo_core.video.reading import FrameReader

from .conftest import Cli


@pytest.fixture(scope="module")
def vae_only(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What somebody has who wants the VAE and nothing else."""
    root = tmp_path_factory.mktemp("vae-only")
    shutil.copytree(tiny_checkpoint / "vae", root / "vae")
    return root


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """27 frames of 50x35, as one may find them."""
    generator = torch.Generator().manual_seed(1)
    frames = torch.randint(0, 256, (27, 36, 50, 3), dtype=torch.uint8, generator=generator)
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    with open_writer(
        path, height=36, width=50, fps=24, crop=False, denoise=False, metadata={}, latents=None
    ) as writer:
        writer.write(frames)
    return path


@pytest.fixture(scope="module")
def pixels(video: Path) -> Tensor:
    """What of it the VAE sees: uint8 [26, 32, 48, 3]."""
    with FrameReader(video) as reader:
        return torch.stack(list(reader.frames()))[:26, 2:34, 1:49]


@pytest.fixture(scope="module")
def vae(vae_only: Path) -> VideoVAE:
    """The same model, called directly."""
    layout = CheckpointLayout(vae_only)
    device = torch.device("cpu")
    plan = DispatchPlan(load_registry(), DispatchPolicy(), device=device, dtype=torch.float32)
    with torch.device("meta"):
        module = VideoVAE(layout.vae_config, plan)
    load_weights(module, layout.open("vae"), KEY_MAPS["vae"], dtype=torch.float32, device=device)
    return module


def test_chunks_give_what_the_whole_video_gives(
    vae: VideoVAE, vae_only: Path, pixels: Tensor
) -> None:
    codec = VAECodec.from_pretrained(vae_only)
    latents = torch.cat(list(codec.encode(pixels.split(17))), dim=1)
    with torch.inference_mode():
        whole = vae.encode((pixels.movedim(-1, 1).float() / 127.5 - 1)[None])
        assert latents.shape == (1, 5, 8, 2, 3)
        assert torch.allclose(latents, whole.mean, atol=1e-5)
        frames = to_uint8(vae.decode(latents)[0])
    streamed = torch.cat(list(codec.decode(latents.split(3, dim=1))))
    assert torch.equal(streamed, torch.cat(list(codec.decode([latents]))))
    assert torch.equal(streamed, frames)


def test_a_sample_follows_the_seed(vae_only: Path, pixels: Tensor) -> None:
    codec = VAECodec.from_pretrained(vae_only)

    def sample(seed: int | None) -> Tensor:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return next(codec.encode([pixels[:1]], generator))

    assert torch.equal(sample(3), sample(3))
    assert not torch.equal(sample(3), sample(4))
    assert not torch.equal(sample(3), sample(None))


def test_encode_then_decode(
    cli: Cli, vae_only: Path, video: Path, pixels: Tensor, tmp_path: Path
) -> None:
    file, out = tmp_path / "clip.safetensors", tmp_path / "frames"
    done = cli("vae", "encode", video, file, "--model", vae_only, "--json")
    assert done.code == 0, done.stderr
    assert done.json["latents"] == [1, 5, 8, 2, 3]
    assert done.json["frames"] == 26
    assert done.json["notes"] == [
        "frames of 50x36 are cropped to 48x32",
        "the last 1 of 27 frames are left out: the VAE codes chunks of 17 frames, and at the end "
        "one of 1 or 9",
    ]
    latents, record = read_latents(file)
    codec = VAECodec.from_pretrained(vae_only)
    wanted = torch.cat(list(codec.encode(pixels.split(17))), dim=1)
    assert torch.allclose(latents, wanted, atol=1e-6)
    assert record["settings"] == {"fps": 24.0}
    assert record["encoded_from"] == {
        **{"file": "clip.mp4", "width": 50, "height": 36, "posterior": "mean", "seed": None}
    }
    done = cli("vae", "decode", file, out, "--json")  # the record names the model
    assert done.code == 0, done.stderr
    assert done.json["frames"] == 26
    found = np.stack([np.asarray(Image.open(path)) for path in sorted(out.glob("*.png"))])
    assert np.array_equal(found, torch.cat(list(codec.decode([latents]))).numpy())


def test_decode_of_a_run_takes_vae_latents(
    cli: Cli, tiny_checkpoint: Path, video: Path, tmp_path: Path
) -> None:
    """Both commands read one another's files."""
    file = tmp_path / "clip.safetensors"
    short = ["--frames", 1]
    done = cli("vae", "encode", video, file, "--model", tiny_checkpoint, *short)
    assert done.code == 0
    assert "this model is untrained" in done.stderr
    assert cli("decode", file, "-o", tmp_path / "one").code == 0
    assert cli("vae", "decode", file, tmp_path / "two").code == 0
    one, two = (np.asarray(Image.open(tmp_path / n / "frame_0000.png")) for n in ("one", "two"))
    assert np.array_equal(one, two)


def test_reconstruct_measures_what_it_writes(
    cli: Cli, vae_only: Path, video: Path, pixels: Tensor, tmp_path: Path
) -> None:
    out = tmp_path / "frames"
    arguments = ["vae", "reconstruct", video, out, "--model", vae_only]
    done = cli(*arguments, "--json")
    assert done.code == 0, done.stderr
    found = torch.stack(
        [torch.from_numpy(np.array(Image.open(path))) for path in sorted(out.glob("*.png"))]
    )
    assert done.json["size"] == [48, 32]
    for name, measure in (("psnr", psnr), ("ssim", ssim)):
        values = measure(found, pixels).tolist()
        assert done.json[name]["per_frame"] == pytest.approx(values, rel=1e-6)
        assert done.json[name]["mean"] == pytest.approx(sum(values) / 26)
        assert done.json[name]["lowest"] == pytest.approx(min(values))
    assert json.loads((out / "video.json").read_text())["encoded_from"]["file"] == "clip.mp4"
    told = cli("vae", "reconstruct", video, "--model", vae_only, "--frames", 1)
    assert "PSNR (dB)" in told.stdout


def test_pictures(cli: Cli, vae_only: Path, tmp_path: Path, pixels: Tensor) -> None:
    picture, file = tmp_path / "a.png", tmp_path / "a.safetensors"
    Image.fromarray(pixels[0].numpy()).save(picture)
    model = ["--model", vae_only]
    assert cli("vae", "encode", picture, file, *model).code == 0
    assert load_file(file)["latents"].shape == (1, 1, 8, 2, 3)
    assert cli("vae", "decode", file, tmp_path / "b.png").code == 0
    done = cli("vae", "reconstruct", picture, tmp_path / "c.png", *model, "--json")
    assert done.json["frames"] == 1
    b, c = (np.asarray(Image.open(tmp_path / name)) for name in ("b.png", "c.png"))
    assert np.array_equal(b, c)
    assert b.shape == (32, 48, 3)
    # Without a rate in its record, a picture's latents can still become a video.
    assert cli("vae", "decode", file, tmp_path / "d.gif").code == 0


def test_memory_does_not_grow_with_the_video(vae_only: Path) -> None:
    """A hundred chunks pass through, one and its neighbour at a time."""
    codec = VAECodec.from_pretrained(vae_only)
    alive = taken = 0

    class Chunk(torch.Tensor):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def chunks() -> Any:
        nonlocal alive, taken
        for number in range(100):
            alive, taken = alive + 1, number + 1
            yield torch.zeros(1, 16, 16, 3, dtype=torch.uint8).as_subclass(Chunk)

    for count, _ in enumerate(codec.encode(chunks()), start=1):
        assert taken == count
        assert alive <= 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["encode", "{video}", "out.mp4"], "latents are written as .safetensors"),
        (["encode", "none.mp4", "out.safetensors"], "none.mp4 is missing"),
        (["encode", "{video}", "o.safetensors", "--fit", "exact"], "multiples of 16; crop them"),
        (["encode", "{video}", "o.safetensors", "--model", "."], "holds no Step-Video checkpoint"),
        (["encode", "{video}", "o.safetensors", "--op", "rope_3d=reference"], "meets no call site"),
        (["decode", "none.safetensors", "out.mp4"], "none.safetensors is missing"),
        (["reconstruct", "{video}", "{video}"], "is the original itself"),
        (["reconstruct", "{video}", "out.avi"], "has an extension that cannot be written"),
        (["reconstruct", "{video}", "o.png"], "o.png holds one frame, but there are more"),
    ],
)
def test_mistakes(
    cli: Cli,
    vae_only: Path,
    video: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    named = [argument.format(video=video) for argument in arguments]
    model = [] if "--model" in named else ["--model", vae_only]
    done = cli("vae", *named, *model)
    assert done.code == 2, done.stderr
    assert message in done.complaint
    assert list(tmp_path.iterdir()) == []


def test_latents_of_another_vae(cli: Cli, vae_only: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_file({"latents": torch.zeros(1, 3, 64, 2, 2)}, file)
    done = cli("vae", "decode", file, tmp_path / "a.mp4", "--model", vae_only)
    assert "this VAE decodes [1, F, 8, h, w]" in done.complaint
    assert "name it with --model" in cli("vae", "decode", file, tmp_path / "a.mp4").complaint


def test_lpips_is_asked_for_or_told(
    cli: Cli, vae_only: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    arguments = ["vae", "reconstruct", video, "--model", vae_only, "--frames", 1]
    done = cli(*arguments, "--json")
    assert done.json["lpips"] is None
    assert "its package is not installed" in done.json["why_no_lpips"]
    assert "its package is not installed" in cli(*arguments, "--lpips").complaint
    assert cli(*arguments, "--no-lpips", "--json").json["why_no_lpips"].endswith("--no-lpips")


def test_lpips_gets_the_frames_between_minus_one_and_one(
    cli: Cli, vae_only: Path, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in for the package, which has the same interface and a distance we know."""
    (tmp_path / "lpips.py").write_text(
        "import torch\n"
        "class LPIPS(torch.nn.Module):\n"
        "    def __init__(self, net, verbose):\n"
        "        super().__init__()\n"
        "        assert net == 'alex'\n"
        "    def forward(self, one, other):\n"
        "        assert one.shape[:2] == (1, 3) and -1 <= one.min() and one.max() <= 1\n"
        "        return (one - other).square().mean().reshape(1, 1, 1, 1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    done = cli("vae", "reconstruct", video, "--model", vae_only, "--frames", 1, "--json")
    assert done.code == 0, done.stderr
    mse = done.json["lpips"]["mean"] * 127.5**2
    assert done.json["psnr"]["mean"] == pytest.approx(10 * math.log10(255**2 / mse), rel=1e-4)
