"""The virtual NPU as the stand-in for backend `npu` in `stepvideo parity --virtual`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from stepvideo_core.testing.virtual import VirtualDevice
from stepvideo_virtual_npu.soc import DEFAULT_SOC, SOCS


def _command(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "stepvideo_virtual_npu", "--", "stepvideo", *arguments]


_NAME = SOCS[DEFAULT_SOC].runtime_name

stand_in = VirtualDevice(
    description=f"a virtual {_NAME} in host memory, under the real torch_npu",
    command=_command,
)
