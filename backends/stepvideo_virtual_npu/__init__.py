"""A virtual Ascend NPU: the real torch_npu, without CANN and without an NPU. See README.md.

`activate()` before torch_npu is imported; importing this package changes nothing.
"""

from __future__ import annotations

from stepvideo_virtual_npu.activation import LEVELS, Activation, Level, activate, active
from stepvideo_virtual_npu.errors import (
    ContractViolation,
    NotModelled,
    PolicyViolation,
    VirtualNpuError,
    VirtualNpuUnavailable,
)
from stepvideo_virtual_npu.soc import DEFAULT_SOC, SOCS, Soc

__all__ = [
    "DEFAULT_SOC",
    "LEVELS",
    "SOCS",
    "Activation",
    "ContractViolation",
    "Level",
    "NotModelled",
    "PolicyViolation",
    "Soc",
    "VirtualNpuError",
    "VirtualNpuUnavailable",
    "activate",
    "active",
    "recorded_calls",
]

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepvideo_virtual_npu.recording import recorded_calls


def __getattr__(name: str) -> Any:
    # Recording needs torch, which must not be imported before `activate()` has set its environment.
    if name == "recorded_calls":
        from stepvideo_virtual_npu.recording import recorded_calls

        return recorded_calls
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
