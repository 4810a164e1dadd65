"""Stages: time, units, peaks, and running out of memory."""

from __future__ import annotations

import mmap

import pytest
import torch

from stepvideo_core.errors import NotEnoughMemory
from stepvideo_core.memory.meter import PeakMeter
from stepvideo_core.memory.units import format_bytes, parse_memory
from stepvideo_core.progress import StageLog

CPU = torch.device("cpu")


def test_a_stage_is_reported() -> None:
    log = StageLog(CPU)
    with log.stage("work", 5, "steps") as advance:
        advance(2)
        advance(3)
        assert log.current == "work"
    (report,) = log.reports
    assert (report.name, report.count, report.unit) == ("work", 5, "steps")
    assert report.seconds > 0
    assert report.device_peak_bytes is None
    assert log.current is None


def test_a_failed_stage_stays_current_and_is_not_reported() -> None:
    log = StageLog(CPU)
    with pytest.raises(ZeroDivisionError), log.stage("work"):
        raise ZeroDivisionError
    assert log.current == "work"
    assert log.reports == []


def test_a_peak_that_is_over_before_the_end_is_seen() -> None:
    size = 64 * 2**20
    meter = PeakMeter(CPU)
    if not meter._has_mark:
        pytest.skip("this system keeps no high-water mark that can be reset")
    before = meter.host_peak()
    # Fresh pages from the system: malloc may hand out ones that an earlier test left resident.
    with mmap.mmap(-1, size) as pages:
        for offset in range(0, size, mmap.PAGESIZE):
            pages[offset] = 1
    assert meter.host_peak() - before > size * 0.9


def test_running_out_of_memory_names_the_stage() -> None:
    log = StageLog(CPU)
    with pytest.raises(NotEnoughMemory, match="cpu ran out of memory in stage decode"):
        with log.stage("decode"):
            torch.empty(2**55, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="shape"), log.stage("decode"):
        torch.ones(2) @ torch.ones(3, 3)


@pytest.mark.parametrize(
    ("text", "count"),
    [("12GiB", 12 * 2**30), ("900 MB", 900 * 10**6), ("1.5gib", 3 * 2**29), ("4096", 4096)],
)
def test_memory_sizes(text: str, count: int) -> None:
    assert parse_memory(text) == count


def test_bytes_are_readable() -> None:
    assert [format_bytes(n) for n in (12, 3 * 2**20, 58.7 * 2**30)] == ["12 B", "3 MiB", "58.7 GiB"]
