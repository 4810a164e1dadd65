"""Running the command line, in this process or in one of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stepvideo_core.cli import main


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    @property
    def complaint(self) -> str:
        """The one error sentence; fails if there are none, several, or a traceback."""
        assert "Traceback" not in self.stderr, self.stderr
        lines = [line for line in self.stderr.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.stderr
        return lines[0].removeprefix("error: ")


Cli = Callable[..., Outcome]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """`cli("run", "a fox", ...)` through the console script's own entry."""

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["stepvideo", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        code = caught.value.code
        return Outcome(code if isinstance(code, int) else 0, captured.out, captured.err)

    return call


@pytest.fixture
def cli_process() -> Cli:
    """The same in a process of its own; `prelude` is Python code that runs before the command."""

    def call(*arguments: object, prelude: str = "", cwd: Path | None = None) -> Outcome:
        program = textwrap.dedent(prelude) + "\nfrom stepvideo_core.cli import main\nmain()\n"
        done = subprocess.run(
            [sys.executable, "-c", program, *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=cwd,
            timeout=300,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture
def quick(tiny_checkpoint: Path) -> list[str]:
    """Arguments of a run that takes a second."""
    size = ["--frames", "17", "--height", "32", "--width", "48", "--steps", "2"]
    return ["--model", str(tiny_checkpoint), *size]
