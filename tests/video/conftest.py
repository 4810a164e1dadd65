"""Clips and readers: what is written is read back with PyAV, Pillow and safetensors."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import av
import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image, ImageSequence
from safetensors.torch import load_file
from torch import Tensor

from stepvideo_core.video import FrameWriter, open_writer

KINDS = ["mp4", "webm", "gif", "png", "safetensors"]


class Clips:
    """Makes, saves and reads clips; reached through a fixture, as tests import no other test."""

    names = {kind: f"clip.{kind}" for kind in KINDS} | {"png": "clip"}
    record: ClassVar[dict[str, Any]] = {
        "prompt": "一只熊猫在竹林里弹吉他，电影质感 🐼",
        "seed": 2**40 + 1,
        "settings": {"steps": 50, "cfg_scale": 9.0, "negative": 'a "quoted"\nline\\'},
        "plan": [{"op": "attention", "site": f"dit.{i}", "impl": "cpu:plain"} for i in range(3)],
        "versions": {"stepvideo": "0.1.0", "torch": None},
    }

    @staticmethod
    def smooth(num_frames: int, height: int = 48, width: int = 64) -> Tensor:
        """Soft gradients that drift: uint8 [T, H, W, 3]. Every frame differs from the others."""
        rows = torch.linspace(0, 1, height)[:, None].expand(height, width)
        columns = torch.linspace(0, 1, width)[None, :].expand(height, width)
        frames = [
            torch.stack(
                [
                    150 + 60 * torch.sin(2 * columns + rows + 0.3 * t),
                    110 + 50 * torch.cos(2 * rows + 0.2 * t),
                    90 + 60 * columns,
                ],
                dim=-1,
            )
            for t in range(num_frames)
        ]
        return torch.stack(frames).to(torch.uint8)

    @staticmethod
    def noise(num_frames: int, height: int = 48, width: int = 64) -> Tensor:
        """All levels at random, which nothing compresses: uint8 [T, H, W, 3]."""
        generator = torch.Generator().manual_seed(7)
        shape = (num_frames, height, width, 3)
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)

    @staticmethod
    def latents() -> Tensor:
        return torch.randn(1, 6, 4, 4, 6, generator=torch.Generator().manual_seed(1))

    @classmethod
    def writer(cls, path: Path, frames: Tensor, **options: Any) -> FrameWriter:
        """A writer for frames of this size, plain but for the options."""
        settings: dict[str, Any] = {
            "height": frames.shape[1],
            "width": frames.shape[2],
            "crop": False,
            "denoise": False,
            "metadata": cls.record,
            "latents": cls.latents(),
        }
        return open_writer(path, **(settings | options))

    @classmethod
    def save(cls, path: Path, frames: Tensor, **options: Any) -> Path:
        with cls.writer(path, frames, **options) as writer:
            writer.write(frames)
        return path

    @staticmethod
    def read(path: Path) -> npt.NDArray[np.int64]:
        """All frames of an output [T, H, W, 3], wide enough to subtract."""
        if path.is_dir():
            frames = [np.asarray(Image.open(file)) for file in sorted(path.glob("*.png"))]
        elif path.suffix == ".safetensors":
            frames = list(load_file(path)["frames"].numpy())
        elif path.suffix == ".gif":
            with Image.open(path) as image:
                frames = [np.asarray(f.convert("RGB")) for f in ImageSequence.Iterator(image)]
        else:
            with av.open(str(path.absolute())) as container:
                frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
        return np.stack(frames).astype(np.int64)

    @staticmethod
    def tree(folder: Path) -> dict[str, bytes | None]:
        """Everything below a folder with its content, hidden files included."""
        return {
            str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
            for path in sorted(folder.rglob("*"))
        }


@pytest.fixture
def clips() -> type[Clips]:
    return Clips


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of output in turn."""
    return str(request.param)


@pytest.fixture
def output(kind: str, tmp_path: Path) -> Path:
    """A path of each kind in turn, alone in its folder."""
    return tmp_path / Clips.names[kind]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 KiB; skips where this process may not mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
