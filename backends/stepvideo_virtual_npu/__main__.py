"""`python -m stepvideo_virtual_npu [--soc NAME] [--level LEVEL] -- COMMAND ARGUMENTS...`"""

from __future__ import annotations

import argparse
import sys

from stepvideo_virtual_npu.activation import LEVELS, activate
from stepvideo_virtual_npu.errors import VirtualNpuUnavailable
from stepvideo_virtual_npu.program import run_program
from stepvideo_virtual_npu.soc import DEFAULT_SOC, SOCS

_EXIT_USER = 2


def main(arguments: list[str]) -> None:
    """Start the virtual NPU in this process and run a program on it."""
    parser = argparse.ArgumentParser(
        prog="python -m stepvideo_virtual_npu",
        description="Run a Python program on a virtual Ascend NPU: the real torch_npu on host "
        "memory. Its results are no evidence about hardware beyond what the README says.",
    )
    parser.add_argument("--soc", default=DEFAULT_SOC, help=f"{', '.join(SOCS)} ({DEFAULT_SOC})")
    parser.add_argument("--level", default="device", help=f"{', '.join(LEVELS)} (device)")
    parser.add_argument(
        "command",
        nargs=argparse.REMAINDER,
        metavar="-- COMMAND ARGUMENTS...",
        help="a console script such as stepvideo or pytest, a script, or python -m/-c",
    )
    options = parser.parse_args(arguments)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        parser.error("name a command after --")
    try:
        activate(options.soc, options.level)
        run_program(command)
    except VirtualNpuUnavailable as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(_EXIT_USER) from None


if __name__ == "__main__":
    main(sys.argv[1:])
