"""Public facts about accelerators, for predictions and to print beside what is measured.

Rates are dense, without sparsity, with float32 accumulation. Where a probe of ours or a published
one exists, `reached` holds it: datasheets are not reached by anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch

from stepvideo_bench.units import format_bandwidth, format_rate
from stepvideo_core.errors import InvalidRequest

# What H100's probes reach of its datasheet (798 of 989 TFLOP/s, 3.0 of 3.35 TB/s), taken for
# devices of which no probe is known.
_REACHED_COMPUTE, _REACHED_MEMORY = 0.81, 0.90


@dataclass(frozen=True, kw_only=True)
class Published:
    """A denoising step that somebody else measured: size (frames, height, width), one device."""

    size: tuple[int, int, int]
    seconds_per_step: float
    source: str


@dataclass(frozen=True, kw_only=True)
class Device:
    """One accelerator. half, single: FLOP/s in bfloat16/float16 and in float32; None is unknown.

    memory, bandwidth: bytes and bytes per second. reached: (FLOP/s in bfloat16, bytes/s) that a
    large product and a copy were measured at. published: steps to check a prediction against.
    """

    name: str
    matches: tuple[str, ...]
    half: float
    single: float | None
    bandwidth: float
    memory: int
    source: str
    reached: tuple[float, float] | None = None
    published: tuple[Published, ...] = ()

    def rates(self, dtype: torch.dtype) -> tuple[float, float]:
        """(FLOP/s, bytes/s) to expect of a plain product and a copy; InvalidRequest if unknown."""
        peak = self.half if dtype in (torch.bfloat16, torch.float16) else self.single
        if dtype == torch.float64 or peak is None:
            name = str(dtype).removeprefix("torch.")
            raise InvalidRequest(
                f"no public rate of {self.name} in {name} is known here; take --dtype bfloat16"
            )
        if self.reached is None:
            return peak * _REACHED_COMPUTE, self.bandwidth * _REACHED_MEMORY
        return peak * self.reached[0] / self.half, self.reached[1]

    @property
    def text(self) -> str:
        """The datasheet in a line."""
        single = "" if self.single is None else f", {format_rate(self.single)}FLOP/s float32"
        return (
            f"{self.name}: {format_rate(self.half)}FLOP/s bfloat16{single}, "
            f"{format_bandwidth(self.bandwidth)}, {self.memory / 1e9:.0f} GB"
        )


_GB, _T = 10**9, 1e12

DEVICES: Mapping[str, Device] = MappingProxyType(
    {
        "a100": Device(
            name="NVIDIA A100 SXM 80 GB",
            matches=("A100-SXM4-80GB",),
            half=312 * _T,
            single=19.5 * _T,
            bandwidth=2.039 * _T,
            memory=80 * _GB,
            source="NVIDIA A100 datasheet",
        ),
        "h100": Device(
            name="NVIDIA H100 SXM",
            matches=("H100 80GB HBM3", "H100 SXM"),
            half=989 * _T,
            single=67 * _T,
            bandwidth=3.35 * _T,
            memory=80 * _GB,
            source="NVIDIA H100 datasheet; reached: probes of this project's research",
            reached=(798 * _T, 3.0 * _T),
        ),
        "h200": Device(
            name="NVIDIA H200 SXM",
            matches=("H200",),
            half=989 * _T,
            single=67 * _T,
            bandwidth=4.8 * _T,
            memory=141 * _GB,
            source="NVIDIA H200 datasheet; reached: probes of this project's research",
            reached=(788 * _T, 4.3 * _T),
        ),
        "h20": Device(
            name="NVIDIA H20",
            matches=("H20",),
            half=148 * _T,
            single=44 * _T,
            bandwidth=4.0 * _T,
            memory=96 * _GB,
            source="NVIDIA H20 product brief",
            published=(
                Published(
                    size=(204, 544, 992),
                    seconds_per_step=213.6,
                    source="xDiT's documentation, one H20; its size is not stated, this is the "
                    "default",
                ),
            ),
        ),
        "rtx4090": Device(
            name="NVIDIA GeForce RTX 4090",
            matches=("RTX 4090",),
            half=165.2 * _T,
            single=82.6 * _T,
            bandwidth=1.008 * _T,
            memory=24 * _GB,
            source="NVIDIA Ada GPU architecture whitepaper, appendix A",
        ),
        "rtx5090": Device(
            name="NVIDIA GeForce RTX 5090",
            matches=("RTX 5090",),
            half=209.5 * _T,
            single=104.8 * _T,
            bandwidth=1.792 * _T,
            memory=32 * _GB,
            source="NVIDIA RTX Blackwell GPU architecture whitepaper, appendix",
        ),
        "910b2": Device(
            name="Ascend 910B2",
            matches=("910B2",),
            half=353.9 * _T,
            single=None,
            bandwidth=1.6 * _T,
            memory=64 * _GB,
            source="24 cube cores x 1.8 GHz x 8192 FLOP, gitcode.com/cann/ops-cv/issues/997",
        ),
        "910b3": Device(
            name="Ascend 910B3",
            matches=("910B3",),
            half=294.9 * _T,
            single=None,
            bandwidth=1.6 * _T,
            memory=64 * _GB,
            source="20 cube cores x 1.8 GHz x 8192 FLOP, gitcode.com/cann/ops-cv/issues/997",
        ),
    }
)


def find_device(name: str) -> Device:
    """A device by the name that `--assume` takes; InvalidRequest lists them."""
    device = DEVICES.get(name.lower())
    if device is None:
        raise InvalidRequest(f"--assume {name!r} is none of {', '.join(DEVICES)}")
    return device


def datasheet_of(reported_name: str) -> Device | None:
    """The facts of a device by the name that its driver reports; None if it is not in the table."""
    for device in DEVICES.values():
        words = reported_name.split()
        if any(match in reported_name and _whole(match, words) for match in device.matches):
            return device
    return None


def _whole(match: str, words: list[str]) -> bool:
    """H20 must not be found in H200."""
    return all(part in words for part in match.split())
