"""Whether the virtual NPU can start in this process, checked before anything is changed."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from stepvideo_virtual_npu.cann.elf_writer import MACHINES
from stepvideo_virtual_npu.errors import VirtualNpuUnavailable

AUTOLOAD = "TORCH_DEVICE_BACKEND_AUTOLOAD"


def check_environment() -> None:
    """Raise VirtualNpuUnavailable with one sentence if the virtual NPU cannot start here.

    Imports neither torch nor torch_npu.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        raise VirtualNpuUnavailable(
            "the virtual NPU needs Linux with glibc, for which torch_npu is built; this is "
            f"{platform.system()} {platform.libc_ver()[0] or 'without glibc'}"
        )
    if platform.machine() not in MACHINES:
        raise VirtualNpuUnavailable(
            f"the virtual NPU runs on {' and '.join(MACHINES)}, not on {platform.machine()}"
        )
    if "torch_npu" in sys.modules:
        raise VirtualNpuUnavailable(
            "torch_npu is imported already; start the virtual NPU in a fresh process, before it"
        )
    if os.environ.get("ASCEND_HOME_PATH"):
        raise VirtualNpuUnavailable(
            "ASCEND_HOME_PATH is set, so torch_npu would look for a real CANN; unset it"
        )
    _check_pair(_installed("torch"), _installed("torch_npu"))


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        raise VirtualNpuUnavailable(
            f"{package} is not installed; `make test-npu` in a checkout makes an environment with "
            "the right pair"
        ) from None


def _check_pair(torch: str, torch_npu: str) -> None:
    """torch_npu is built against one release of torch and loads with no other."""
    numbers = torch.split("+")[0]
    if torch_npu.split("+")[0].split(".post")[0] != numbers:
        raise VirtualNpuUnavailable(
            f"torch {torch} and torch_npu {torch_npu} are no pair; both must be of one release: "
            f"pip install --no-deps torch_npu=={numbers}"
        )
