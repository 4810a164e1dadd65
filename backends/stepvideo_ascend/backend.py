"""The Ascend backend, as a record that costs nothing to make."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from stepvideo_ascend.versions import Stack, advice, cann_remark, mismatches, read_stack
from stepvideo_core import __version__
from stepvideo_core.cli.autoload import hide_torch_npu, missing_cann_library
from stepvideo_core.dispatch import Backend, find_library
from stepvideo_core.errors import BackendUnavailable
from stepvideo_core.ops import OpImpl


def _why_not() -> list[str]:
    # Someone else, torch's autoload for one, has imported it: then there is nothing to foresee.
    if sys.modules.get("torch_npu") is not None:
        return []
    stack = read_stack()
    problems = mismatches(stack) or cann_problems(stack, missing_cann_library())
    if problems and stack.torch_npu is not None:
        hide_torch_npu()
    return problems


def cann_problems(stack: Stack, missing: OSError | None) -> list[str]:
    """Why torch_npu would not find CANN: absent, there but not in use, or broken.

    missing: what the system said about the library that did not open.
    """
    if missing is None:
        return []
    if stack.sourced:
        return [
            "the environment names a CANN installation, but one of its libraries does not open "
            f"({missing}): source its set_env.sh again, or install CANN anew"
        ]
    if stack.cann_home is not None:
        return [
            f"CANN {stack.cann} is installed but this shell does not use it: "
            f"source {_set_env(stack.cann_home)}"
        ]
    return [
        f"torch_npu {stack.torch_npu} is here and CANN is not ({missing}): install the driver and "
        f"CANN, then source its set_env.sh; {advice(stack.torch)}"
    ]


def _set_env(home: Path) -> Path:
    """The script that puts a CANN installation in use; it lies in the folder or beside `latest`."""
    inside = home / "set_env.sh"
    return inside if inside.is_file() or home.name != "latest" else home.parent / "set_env.sh"


def _load() -> Sequence[OpImpl[Any]]:
    library = find_library("torch_npu", needs=(), install="pip install 'stepvideo[npu]'")
    if library.problem is not None:
        # It has failed half-way; whoever imports it next because it is installed would fail too.
        hide_torch_npu()
        raise BackendUnavailable(f"{library.problem}; {advice(read_stack().torch)}")
    npu = library.module.npu
    if not npu.is_available():
        stack = read_stack()
        raise BackendUnavailable(
            f"torch_npu sees no NPU, and /dev shows {stack.devices} davinci devices "
            f"(driver {stack.driver or 'not found'}): `npu-smi info` must list one, a container "
            "needs --device /dev/davinci0, and ASCEND_RT_VISIBLE_DEVICES must not hide it"
        )
    from stepvideo_ascend import attention, convolution, linear, modulation, norm, rope
    from stepvideo_ascend.settings import apply_settings
    from stepvideo_ascend.toolbox import find_toolbox

    apply_settings()
    toolbox = find_toolbox()
    families = (linear, attention, norm, rope, modulation, convolution)
    return [impl for family in families for impl in family.implementations(toolbox)]


def _settings() -> list[str]:
    from stepvideo_ascend.settings import apply_settings

    return [str(setting) for setting in apply_settings()]


def _describe() -> list[str]:
    from stepvideo_ascend.capability import probe

    stack = read_stack()
    lines = [str(stack), *cann_remark(stack)]
    for index in range(torch.accelerator.device_count()):
        device = probe(torch.device("npu", index))
        lines.append(f"npu:{index} {device}, {device.memory / 2**30:.1f} GiB")
    return lines


def npu_backend() -> Backend:
    """The backend for Ascend NPUs."""
    return Backend(
        name="npu",
        device_type="npu",
        why_not=_why_not,
        load=_load,
        rank=100,
        describe=_describe,
        settings=_settings,
        version=__version__,
        summary="Ascend NPUs: torch_npu's fused operators, tested on the device before use",
    )
