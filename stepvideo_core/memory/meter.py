"""Peak memory of a stretch of work, on the host and on the accelerator."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch

_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


class PeakMeter:
    """Measures from its construction on.

    On Linux the kernel's own high-water mark is reset and read back, so nothing is sampled and no
    peak is missed. Elsewhere the host figure is the resident size at the end of the stage.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device if device.type not in ("cpu", "meta") else None
        self._has_mark = _reset_high_water_mark()
        if self._device is not None:
            torch.accelerator.reset_peak_memory_stats(self._device)

    def synchronize(self) -> None:
        """Wait for the accelerator, so that times and peaks belong to the work before."""
        if self._device is not None:
            torch.accelerator.synchronize(self._device)

    def host_peak(self) -> int:
        """Bytes resident at the peak, memory-mapped weights included."""
        return _high_water_mark() if self._has_mark else int(psutil.Process().memory_info().rss)

    def device_peak(self) -> int | None:
        """Bytes allocated on the accelerator at the peak; None on the CPU."""
        if self._device is None:
            return None
        return int(torch.accelerator.max_memory_allocated(self._device))


def _reset_high_water_mark() -> bool:
    try:
        _CLEAR_REFS.write_text("5")
    except OSError:  # not Linux, or a sandbox that forbids it
        return False
    return True


def _high_water_mark() -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{_STATUS} has no VmHWM line")
