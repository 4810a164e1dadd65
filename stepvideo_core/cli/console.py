"""What the user sees: messages and progress on stderr, results on stdout."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from stepvideo_core.progress import StageReport


_SECONDS_BETWEEN_LINES = 10.0


def stderr() -> Console:
    return Console(stderr=True, highlight=False)


def stdout() -> Console:
    return Console(highlight=False)


def complain(message: str) -> None:
    """An error, on stderr, unwrapped so that paths and commands can be copied."""
    stderr().print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)


def note(message: str) -> None:
    """Something the user should know, on stderr."""
    stderr().print(f"[yellow]note:[/] {escape(message)}", soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON object on stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def print_table(table: Table) -> None:
    """A table on stdout; beyond a terminal it is as wide as its content."""
    console = stdout()
    if not console.is_terminal:
        console = Console(highlight=False, width=200)
    console.print(table)


class _AmountColumn(ProgressColumn):
    """`12/50 steps  3.1 s/step`, or a percentage for bytes."""

    def render(self, task: Task) -> Text:
        unit = str(task.fields["unit"])
        if unit == "bytes":
            return Text(f"{task.percentage:3.0f}%")
        total = f"/{int(task.total)}" if task.total is not None else ""
        text = f"{int(task.completed)}{total} {unit}"
        if task.completed and task.elapsed:
            text += f"  {_rate(task.elapsed / task.completed, unit)}"
        return Text(text)


def _rate(seconds: float, unit: str) -> str:
    singular = unit.removesuffix("s")
    return f"{seconds:.2f} s/{singular}" if seconds >= 0.1 else f"{seconds * 1e3:.0f} ms/{singular}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


class ProgressObserver:
    """Draws a bar per stage on a terminal, and plain lines elsewhere."""

    def __init__(self) -> None:
        self._console = stderr()
        self._bars: Progress | None = None
        self._task: TaskID | None = None
        self._name, self._unit, self._done = "", "", 0
        self._total: int | None = None
        self._started = self._spoke = 0.0
        if self._console.is_terminal:
            self._bars = Progress(
                SpinnerColumn(finished_text="[green]✓"),
                TextColumn("{task.description:<10}"),
                BarColumn(bar_width=24),
                _AmountColumn(),
                TimeRemainingColumn(compact=True, elapsed_when_finished=True),
                console=self._console,
            )

    def __enter__(self) -> ProgressObserver:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def begin(self, name: str, total: int | None, unit: str) -> None:
        self._name, self._total, self._unit, self._done = name, total, unit, 0
        self._started = self._spoke = time.monotonic()
        if self._bars is not None:
            self._task = self._bars.add_task(name, total=total or None, unit=unit)

    def advance(self, amount: int) -> None:
        self._done += amount
        now = time.monotonic()
        if self._bars is not None and self._task is not None:
            self._bars.advance(self._task, amount)
        elif self._total and self._unit != "bytes" and now - self._spoke > _SECONDS_BETWEEN_LINES:
            self._spoke = now
            each = (now - self._started) / self._done
            left = _duration(each * (self._total - self._done))
            self._console.print(
                f"{self._name}: {self._done}/{self._total} {self._unit}, "
                f"{_rate(each, self._unit)}, {left} left"
            )

    def end(self, report: StageReport) -> None:
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, total=self._done or 1, completed=self._done or 1)
            self._bars.stop_task(self._task)  # else its pace would go on falling
        else:
            self._console.print(f"{report.name}: {_duration(report.seconds)}")


def stage_table(reports: list[StageReport]) -> Table:
    """Seconds, pace and peak memory of every stage."""
    from stepvideo_core.memory.units import format_bytes

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stage")
    for column in ("time", "pace", "host peak", "device peak"):
        table.add_column(column, justify="right")
    for report in reports:
        paced = report.count and report.unit != "bytes"
        device = report.device_peak_bytes
        table.add_row(
            report.name,
            _duration(report.seconds),
            _rate(report.seconds / report.count, report.unit) if paced else "",
            format_bytes(report.host_peak_bytes),
            "" if device is None else format_bytes(device),
        )
    return table
