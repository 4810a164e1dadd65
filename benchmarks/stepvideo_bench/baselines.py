"""Baselines that are no backend: an operator's definition through torch.compile."""

from __future__ import annotations

import importlib.util
import os
import shutil
import types
from collections.abc import Callable
from typing import Any

import torch

COMPILED = "torch:compile"


def why_not_compile(device: torch.device) -> list[str]:
    """What torch.compile lacks on this machine; an empty list means that it can work."""
    if device.type == "cpu":
        compiler = os.environ.get("CXX") or next(
            (name for name in ("g++", "clang++", "cl") if shutil.which(name)), None
        )
        if compiler is None or shutil.which(compiler) is None:
            return ["torch.compile needs a C++ compiler on the CPU, and neither g++ nor clang++ is "
                    "installed; name another with CXX"]  # fmt: skip
    elif importlib.util.find_spec("triton") is None:
        return [f"torch.compile needs triton on {device.type}, which is not installed"]
    return []


def compiled(fn: Callable[..., Any], backend: Any = "inductor") -> Callable[..., Any]:
    """A definition compiled for the shapes that it is called with, and for those of nobody else.

    torch keeps what it compiled with the code object, and few shapes of each; so a call gets a code
    object of its own.
    """
    assert isinstance(fn, types.FunctionType), fn
    own = types.FunctionType(
        fn.__code__.replace(), fn.__globals__, fn.__name__, fn.__defaults__, fn.__closure__
    )
    return torch.compile(own, dynamic=False, fullgraph=True, backend=backend)
