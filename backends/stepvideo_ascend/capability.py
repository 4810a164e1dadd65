"""What an Ascend device is, as plain data, so that choices can be tested without the device."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

import torch

Generation = Literal["910A", "310P", "A2", "A3", "950", "unknown"]

# By prefix of the name that the runtime reports; longest first, as "Ascend910" begins three.
_GENERATIONS: tuple[tuple[str, Generation], ...] = (
    ("Ascend910_93", "A3"),
    ("Ascend910B", "A2"),
    ("Ascend310P", "310P"),
    ("Ascend950", "950"),
    ("Ascend910", "910A"),
)


@dataclass(frozen=True, kw_only=True)
class Capability:
    """One device: the name of its chip as the runtime gives it, and its memory in bytes."""

    name: str
    memory: int

    @property
    def generation(self) -> Generation:
        """The product generation that the operators' documentation speaks of.

        A2 is Ascend910B, A3 is Ascend910_93, 310P are the inference cards. Names that begin like
        none of the known ones are `unknown` and treated as the newest.
        """
        return next(
            (found for prefix, found in _GENERATIONS if self.name.startswith(prefix)), "unknown"
        )

    @property
    def has_bfloat16(self) -> bool:
        """bfloat16 came with the A2; the 910A and the 310P compute in float16 and float32."""
        return self.generation not in ("910A", "310P")

    def refusals(self, dtype: torch.dtype) -> list[str]:
        """Why the chip cannot compute in a dtype; empty if it can."""
        if dtype == torch.bfloat16 and not self.has_bfloat16:
            return [f"bfloat16 came with the Ascend910B (A2); this is {self}: --dtype float16"]
        if dtype not in (torch.bfloat16, torch.float16, torch.float32):
            return [f"NPUs do not compute in {dtype_name(dtype)}"]
        return []

    def __str__(self) -> str:
        return f"{self.name} ({self.generation})"


def dtype_name(dtype: torch.dtype) -> str:
    """`bfloat16` of torch.bfloat16."""
    return str(dtype).removeprefix("torch.")


def probe(device: torch.device) -> Capability:
    """The capability of an NPU; a device without an index is the current one."""
    index = device.index if device.index is not None else torch.accelerator.current_device_index()
    return _probe(index)


@functools.lru_cache(maxsize=64)
def _probe(index: int) -> Capability:
    import torch_npu

    return Capability(
        name=str(torch_npu.npu.get_device_name(index)),
        memory=int(torch.accelerator.get_memory_info(torch.device("npu", index))[1]),
    )
