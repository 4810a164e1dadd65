"""What a figure depends on: the machine, its software, and the sources it was measured with."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from stepvideo_core.dispatch import ANY_DEVICE, BackendRegistry
from stepvideo_core.record import versions

_CPU_INFO = Path("/proc/cpuinfo")
_SOURCES = Path(__file__).resolve().parents[2]


def fingerprint(registry: BackendRegistry, device: torch.device) -> dict[str, Any]:
    """Facts about this machine for a record; `machine` is what must agree for a comparison."""
    return {
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": {
            "device": device_name(device),
            "cpu": cpu_name(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "system": f"{platform.system()} {platform.machine()}",
        },
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "versions": versions() | {"torch_build": torch.version.cuda or "cpu"},
        "devices": [
            line
            for backend in registry
            if backend.device_type not in (ANY_DEVICE, "cpu") and not registry.why_not(backend.name)
            for line in backend.describe()
        ],
        "emulated": {backend.name: backend.emulation for backend in registry if backend.emulation},
        "revision": _revision(),
    }


def device_name(device: torch.device) -> str:
    """The model of an accelerator, `cpu` for the host."""
    if device.type == "cpu":
        return "cpu"
    return str(torch.get_device_module(device).get_device_name(device))


def cpu_name() -> str:
    """The processor's model and its widest vector instructions."""
    model = platform.processor() or platform.machine()
    if _CPU_INFO.is_file():
        for line in _CPU_INFO.read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return f"{model} ({torch.backends.cpu.get_cpu_capability()})"


def _revision() -> str | None:
    """The commit of the checkout that is running, `+` if it was changed; None outside one."""
    if not (_SOURCES / ".git").exists():
        return None
    git = ["git", "-C", str(_SOURCES)]
    try:
        commit = subprocess.run(
            [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
        )
        dirty = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):  # git is missing or refuses the folder
        return None
    return commit.stdout.strip() + ("+" if dirty.stdout.strip() else "")
