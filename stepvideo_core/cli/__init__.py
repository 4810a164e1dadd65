"""The command line. `main` is the console script; everything heavy is imported by the commands."""

from __future__ import annotations

import sys

from stepvideo_core.cli.autoload import hold_back_torch_npu


def main() -> None:
    """Run the command line and exit: 0 done, 2 a user's mistake, 130 interrupted, 1 a bug."""
    hold_back_torch_npu()
    try:
        from stepvideo_core.cli.app import app

        app()
    except KeyboardInterrupt:  # during the imports; commands have their own, better message
        sys.stderr.write("interrupted\n")
        sys.exit(130)
