"""One virtual NPU for the session; other SoCs and levels get processes of their own."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import stepvideo_virtual_npu
from stepvideo_virtual_npu import VirtualNpuUnavailable

try:
    stepvideo_virtual_npu.activate()
except VirtualNpuUnavailable as unavailable:
    pytest.exit(str(unavailable), returncode=2)

import torch

Completed = subprocess.CompletedProcess[str]
VirtualProcess = Callable[..., Completed]


@pytest.fixture
def virtual_process() -> VirtualProcess:
    """`virtual_process("code", soc="310P3")` runs Python code on a virtual device of its own.

    command: another program instead of the code. The process must end well unless `check=False`.
    """

    def run(
        code: str = "",
        *,
        soc: str = "910B2",
        level: str = "device",
        command: list[str] | None = None,
        check: bool = True,
    ) -> Completed:
        program = command or ["python", "-c", textwrap.dedent(code)]
        virtual = [sys.executable, "-m", "stepvideo_virtual_npu", "--soc", soc, "--level", level]
        done = subprocess.run(
            [*virtual, "--", *program], capture_output=True, text=True, timeout=300
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    return run


@pytest.fixture
def compatible_gelu() -> Iterator[None]:
    """torch_npu's switch that makes F.gelu look at `approximate`, on for one test."""
    with _compatible_implementations(True):
        yield


@pytest.fixture
def plain_gelu() -> Iterator[None]:
    """The same switch at torch_npu's default for one test; the npu backend leaves it on."""
    with _compatible_implementations(False):
        yield


@contextlib.contextmanager
def _compatible_implementations(value: bool) -> Iterator[None]:
    npu: Any = torch.npu  # type: ignore[attr-defined]
    before = npu.are_compatible_impl_enabled()
    npu.use_compatible_impl(value)
    yield
    npu.use_compatible_impl(before)
