"""Running any Python program on the virtual device, in the process that was started for it."""

from __future__ import annotations

import os
import runpy
import sys
from importlib.metadata import entry_points
from pathlib import Path

from stepvideo_virtual_npu.errors import VirtualNpuUnavailable


def run_program(command: list[str]) -> None:
    """Run `command` as its own main program; returns or raises what it does.

    command: a console script of this environment (`stepvideo`, `pytest`), or `python` with a
    script, `-m MODULE` or `-c CODE`, or a script, each with its arguments. It stays in this
    process, so processes that it starts are on their own.
    """
    name, *arguments = command
    if Path(name).name in ("python", "python3") and arguments:
        _run_python(arguments)
        return
    scripts = list(entry_points(group="console_scripts", name=Path(name).name))
    if scripts:
        sys.argv = command
        raise SystemExit(scripts[0].load()())
    if name.endswith(".py"):
        _run_script(command)
        return
    raise VirtualNpuUnavailable(
        f"{name!r} is neither a Python script nor a console script of this environment "
        f"({sys.prefix}); programs written in other languages cannot run on the virtual device"
    )


def _run_python(arguments: list[str]) -> None:
    first, *rest = arguments
    if first == "-m" and rest:
        sys.argv = rest
        sys.path.insert(0, os.getcwd())
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c" and rest:
        sys.argv = ["-c", *rest[1:]]
        sys.path.insert(0, os.getcwd())
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    elif not first.startswith("-"):
        _run_script(arguments)
    else:
        raise VirtualNpuUnavailable(
            f"python {first} is not offered; give a script, -m MODULE or -c CODE"
        )


def _run_script(command: list[str]) -> None:
    script = Path(command[0])
    if not script.is_file():
        raise VirtualNpuUnavailable(f"there is no script {script}")
    sys.argv = command
    sys.path.insert(0, str(script.resolve().parent))
    runpy.run_path(str(script), run_name="__main__")
