"""What a person sees: bars on a terminal."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path


def _on_a_terminal(arguments: list[str]) -> str:
    """Run the command line on a pseudo-terminal and return all that it shows."""
    ours, theirs = pty.openpty()
    environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    process = subprocess.Popen(
        [sys.executable, "-m", "stepvideo_core.cli", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment | {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"},
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # how Linux says that the other end is closed
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    assert process.wait(timeout=60) == 0, shown.decode(errors="replace")
    return shown.decode(errors="replace")


def test_progress_bars(quick: list[str], tmp_path: Path) -> None:
    arguments = ["run", "a red circle", *quick, "--output", str(tmp_path / "v.mp4")]
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", _on_a_terminal(arguments))
    for stage, amount in (("Step-LLM", "2/2 texts"), ("denoise", "2/2 steps")):
        # The last time a finished stage is drawn it shows the pace it had when it ended.
        last = [line for line in shown.splitlines() if stage in line and amount in line]
        paces = {re.search(r"[\d.]+ m?s/\w+", line)[0] for line in last}  # type: ignore[index]
        assert last and len(paces) <= 2, paces
    assert "17/17 frames" in shown
    assert "done in" in shown
