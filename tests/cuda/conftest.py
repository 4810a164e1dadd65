"""The CUDA backend on the CPU: a registry of its own, built under the interpreter switch."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from importlib.metadata import entry_points

import pytest
import torch

from stepvideo_core.dispatch import BackendRegistry
from stepvideo_core.plugins import ENTRY_POINT_GROUP
from stepvideo_core.plugins.manager import build_registry

if importlib.util.find_spec("triton") is None:
    # Published for Linux only; elsewhere neither the backend nor its kernels exist.
    collect_ignore_glob = ["test_*.py"]


def interpreted_registry() -> BackendRegistry:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEPVIDEO_CUDA_INTERPRET", "1")
        registry = build_registry(entry_points(group=ENTRY_POINT_GROUP))
        assert registry.why_not("cuda") == []
    return registry


@pytest.fixture(scope="session")
def registry() -> BackendRegistry:
    return interpreted_registry()


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    """Interpreted kernels are tiny; more threads only get in one another's way."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(before, 2))
    yield
    torch.set_num_threads(before)
