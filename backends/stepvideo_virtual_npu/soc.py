"""The systems-on-chip that can be imitated, as far as software can tell them apart."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from stepvideo_virtual_npu.errors import VirtualNpuUnavailable


class Generation(str, Enum):
    """Families with common operator limits, under the names of the vendor's documentation."""

    INFERENCE_310P = "Atlas inference series (310P)"
    A2 = "Atlas A2"
    A3 = "Atlas A3"
    ASCEND_950 = "Ascend 950"


@dataclass(frozen=True, kw_only=True)
class Soc:
    """One system-on-chip.

    runtime_name: what the runtime calls it, from which torch_npu derives `version`, its SocVersion.
    memory: device memory in bytes, a common size of cards that carry it.
    jit_compile: whether torch_npu compiles operators by default, as CANN tells it.
    """

    name: str
    runtime_name: str
    version: int
    generation: Generation
    memory: int
    bfloat16: bool = True
    jit_compile: bool = False


_GIB = 1 << 30

SOCS: dict[str, Soc] = {
    soc.name: soc
    for soc in (
        Soc(
            name="910B2",
            runtime_name="Ascend910B2",
            version=221,
            generation=Generation.A2,
            memory=64 * _GIB,
        ),
        Soc(
            name="910_9391",
            runtime_name="Ascend910_9391",
            version=250,
            generation=Generation.A3,
            memory=64 * _GIB,
        ),
        Soc(
            name="310P3",
            runtime_name="Ascend310P3",
            version=202,
            generation=Generation.INFERENCE_310P,
            memory=24 * _GIB,
            bfloat16=False,
            jit_compile=True,
        ),
        Soc(
            name="950",
            runtime_name="Ascend950",
            version=260,
            generation=Generation.ASCEND_950,
            memory=128 * _GIB,
        ),
    )
}
DEFAULT_SOC = "910B2"


def find_soc(name: str) -> Soc:
    """The SoC called `name`; VirtualNpuUnavailable lists the known ones otherwise."""
    if name not in SOCS:
        raise VirtualNpuUnavailable(
            f"the virtual NPU knows no SoC {name!r}; known are {', '.join(SOCS)}"
        )
    return SOCS[name]
