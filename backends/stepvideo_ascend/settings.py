"""What the backend sets in torch_npu for this process: explicitly, at load, and said aloud."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass

_ALLOCATOR_VARIABLES = ("PYTORCH_NPU_ALLOC_CONF", "PYTORCH_ALLOC_CONF")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One switch: what it is called, what it stands at, and why."""

    name: str
    value: str
    why: str

    def __str__(self) -> str:
        return f"{self.name} {self.value}: {self.why}"


@functools.cache
def apply_settings() -> tuple[Setting, ...]:
    """Set every switch, once per process, before any module moves to a device.

    torch_npu's defaults differ from one chip to the next, and some trade accuracy for speed without
    a word; with these a result depends on the model and the operators alone.
    """
    import torch_npu

    npu = torch_npu.npu
    # Before modules move: with compilation on, torch_npu rewrites convolution weights to a private
    # format on the way, on some chips through float16.
    npu.set_compile_mode(jit_compile=False)
    npu.config.allow_internal_format = False
    npu.conv.allow_hf32 = False
    npu.matmul.allow_hf32 = False
    done = [
        Setting(
            name="jit_compile",
            value="off",
            why="kernels come from the installed binaries; nothing is compiled per shape",
        ),
        Setting(
            name="allow_internal_format",
            value="off",
            why="tensors keep torch's layout, so that views and copies mean what they say",
        ),
        Setting(
            name="conv.allow_hf32, matmul.allow_hf32",
            value="off",
            why="float32 products keep their 24 bits; torch_npu's default shortens convolutions'",
        ),
    ]
    if hasattr(npu, "use_compatible_impl"):
        npu.use_compatible_impl(True)
        done.append(
            Setting(
                name="use_compatible_impl",
                value="on",
                why="F.gelu computes the form it is asked for; else erf becomes tanh below the 950",
            )
        )
    return (*done, allocator(os.environ))


def allocator(environ: Mapping[str, str]) -> Setting:
    """The caching allocator's configuration, which only the environment can set."""
    for variable in _ALLOCATOR_VARIABLES:
        if variable in environ:
            return Setting(name=variable, value=environ[variable], why="from the environment")
    return Setting(
        name=_ALLOCATOR_VARIABLES[0],
        value="not set",
        why="if memory is short although enough is free, try expandable_segments:True",
    )
