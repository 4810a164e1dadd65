"""Peak memory of a single call."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

import psutil
import torch

from stepvideo_core.memory.meter import PeakMeter


def peak_of_call(
    fn: Callable[..., Any], arguments: tuple[Any, ...], device: torch.device
) -> tuple[Any, int]:
    """The result of a call and the bytes that it took beside its arguments at its peak.

    On an accelerator these are the allocator's own; on the host the growth of the process, in
    pages, after freed memory has been given back, so that small calls may show as 0.
    """
    release_memory(device)
    before = (
        int(psutil.Process().memory_info().rss)
        if device.type == "cpu"
        else int(torch.accelerator.memory_allocated(device))
    )
    meter = PeakMeter(device)
    result = fn(*arguments)
    meter.synchronize()
    on_device = meter.device_peak()
    peak = meter.host_peak() if on_device is None else on_device
    return result, max(0, peak - before)


def release_memory(device: torch.device) -> None:
    """Give back what allocators hold in reserve, so that a growth can be seen."""
    if device.type != "cpu":
        torch.accelerator.empty_cache()
    elif sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
        if trim is not None:
            trim(0)
