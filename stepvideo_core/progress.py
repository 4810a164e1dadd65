"""What a long run tells whoever watches it, and what each stage cost."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch

from stepvideo_core.errors import NotEnoughMemory
from stepvideo_core.memory.meter import PeakMeter


@dataclass(frozen=True, kw_only=True)
class StageReport:
    """Seconds and peak memory of one stage; `count` units of work, e.g. 50 steps."""

    name: str
    seconds: float
    count: int
    unit: str
    host_peak_bytes: int
    device_peak_bytes: int | None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Observer(Protocol):
    """Watches stages; the command line draws bars with it."""

    def begin(self, name: str, total: int | None, unit: str) -> None:
        """A stage starts; `total` units of work, if known."""

    def advance(self, amount: int) -> None:
        """Some units of the current stage are done."""

    def end(self, report: StageReport) -> None:
        """The current stage is complete."""


class Silent:
    """An observer that says nothing."""

    def begin(self, name: str, total: int | None, unit: str) -> None:
        pass

    def advance(self, amount: int) -> None:
        pass

    def end(self, report: StageReport) -> None:
        pass


class StageLog:
    """Times stages, measures their memory, tells the observer, keeps the reports."""

    def __init__(self, device: torch.device, observer: Observer | None = None) -> None:
        self.observer: Observer = observer or Silent()
        self.reports: list[StageReport] = []
        self.current: str | None = None
        """The stage that is running; after an exception, the one that failed."""
        self._device = device

    @contextlib.contextmanager
    def stage(
        self, name: str, total: int | None = None, unit: str = ""
    ) -> Iterator[Callable[[int], None]]:
        """Run a stage; the yielded function reports finished units of work."""
        done = 0

        def advance(amount: int = 1) -> None:
            nonlocal done
            done += amount
            self.observer.advance(amount)

        self.current = name
        self.observer.begin(name, total, unit)
        meter = PeakMeter(self._device)
        start = time.perf_counter()
        try:
            yield advance
            meter.synchronize()
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            raise NotEnoughMemory(
                f"{self._device} ran out of memory in stage {name}: make the video shorter "
                "(--frames) or smaller, or use a half-precision --dtype"
            ) from error
        report = StageReport(
            name=name,
            seconds=time.perf_counter() - start,
            count=done,
            unit=unit,
            host_peak_bytes=meter.host_peak(),
            device_peak_bytes=meter.device_peak(),
        )
        self.reports.append(report)
        self.observer.end(report)
        self.current = None


def _is_out_of_memory(error: RuntimeError) -> bool:
    # On the CPU torch has no exception type of its own for it, only this text.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
