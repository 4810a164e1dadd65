"""What a CUDA device is, as plain data, so that choices can be tested without the device."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

Architecture = Literal[
    "older", "turing", "ampere", "ada", "hopper", "blackwell", "blackwell_rtx", "newer"
]


@dataclass(frozen=True, kw_only=True)
class Capability:
    """One device: its name, compute capability and memory in bytes.

    interpreted: not a device at all, but Triton's interpreter on the CPU.
    """

    name: str
    major: int
    minor: int
    memory: int
    interpreted: bool = False

    @property
    def version(self) -> tuple[int, int]:
        return self.major, self.minor

    @property
    def architecture(self) -> Architecture:
        """The generation that published measurements speak of."""
        if self.version < (7, 5):
            return "older"
        if self.major == 7:
            return "turing"
        if self.major == 8:
            return "ada" if self.minor == 9 else "ampere"
        known: dict[int, Architecture] = {
            9: "hopper",
            10: "blackwell",
            11: "blackwell",
            12: "blackwell_rtx",
        }
        return known.get(self.major, "newer")

    def __str__(self) -> str:
        return f"{self.name} (compute capability {self.major}.{self.minor})"


INTERPRETER = Capability(
    name="Triton's interpreter on the CPU", major=0, minor=0, memory=0, interpreted=True
)


def probe(device: torch.device) -> Capability:
    """The capability of a CUDA device; a device without an index is the current one."""
    index = device.index if device.index is not None else torch.cuda.current_device()
    return _probe(index)


@functools.lru_cache(maxsize=64)
def _probe(index: int) -> Capability:
    properties = torch.cuda.get_device_properties(index)
    return Capability(
        name=properties.name,
        major=properties.major,
        minor=properties.minor,
        memory=properties.total_memory,
    )


def driver_version(proc: Path = Path("/proc/driver/nvidia/version")) -> str:
    """The NVIDIA driver's version as Linux tells it, else `unknown`."""
    try:
        first_line = proc.read_text(encoding="utf-8").splitlines()[0]
    except (OSError, IndexError):
        return "unknown"
    words = (word for word in first_line.split() if word[0].isdigit() and "." in word)
    return next(words, "unknown")


def describe_devices() -> list[str]:
    """One line per device with capability, memory, driver and CUDA version, for `doctor`."""
    if not torch.cuda.is_available():
        return []
    lines = []
    for index in range(torch.cuda.device_count()):
        device = probe(torch.device("cuda", index))
        lines.append(
            f"cuda:{index} {device}, {device.memory / 2**30:.1f} GiB, driver {driver_version()}, "
            f"torch built for CUDA {torch.version.cuda}"
        )
    return lines
