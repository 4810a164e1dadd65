"""The virtual NPU as the stand-in for backend `npu` in `stepvideo parity --virtual`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from stepvideo_core.testing.virtual import VirtualDevice


def _command(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "stepvideo_virtual_npu", "--", "stepvideo", *arguments]


stand_in = VirtualDevice(command=_command)
