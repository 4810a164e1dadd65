"""Stand-ins for devices that are not there, so that a backend can be judged without its hardware.

A package offers one through an entry point of the group `stepvideo.virtual_devices`, under its
backend's name, as a `VirtualDevice`. What runs on it is evidence of level E2 (numerics under
emulation) at most: the operators' mathematics and the calls of them, never a device's kernels.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from stepvideo_core.errors import BackendUnavailable
from stepvideo_core.testing.parity import ParityResult

ENTRY_POINT_GROUP = "stepvideo.virtual_devices"


@dataclass(frozen=True, kw_only=True)
class VirtualDevice:
    """What an entry point is.

    command: the command line that runs `stepvideo` with the given arguments on it, in a process of
    its own, which calls `announce_emulation`; it exits with 2 and a sentence on stderr where the
    stand-in cannot work.
    """

    command: Callable[[Sequence[str]], list[str]]


class VirtualRunFailed(Exception):
    """The process on the virtual device ended without a result; it has said why on stderr."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"exit code {exit_code}")
        self.exit_code = exit_code


def find_virtual_device(backend: str) -> VirtualDevice:
    """The stand-in for a backend's device; BackendUnavailable if no package brings one."""
    offered = {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}
    if backend not in offered:
        raise BackendUnavailable(
            f"there is no virtual device for backend {backend!r}; there is one for "
            f"{', '.join(sorted(offered)) or 'none'}"
        )
    device = offered[backend].load()
    if not isinstance(device, VirtualDevice):
        raise BackendUnavailable(
            f"the virtual device of backend {backend!r} is a {type(device).__name__}, "
            "not a VirtualDevice"
        )
    return device


def run_virtual_parity(
    device: VirtualDevice, backend: str, arguments: Sequence[str]
) -> tuple[list[ParityResult], dict[str, Any]]:
    """Rows and record of `stepvideo parity --backend BACKEND ARGUMENTS` on its virtual device.

    Progress is on stderr. Raises VirtualRunFailed if the process printed no result.
    """
    command = device.command(["parity", "--backend", backend, *arguments, "--json"])
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, 1) or not done.stdout:
        raise VirtualRunFailed(done.returncode or 1)
    answer = json.loads(done.stdout)
    return [ParityResult.from_json(row) for row in answer["results"]], answer["record"]
