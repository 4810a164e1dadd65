"""One quick run of `bench ops`, shared by the tests of what is made of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from stepvideo_bench.ops import OpsRequest
from stepvideo_bench.record import record_ops
from stepvideo_bench.rows import OpsRecord
from stepvideo_core.plugins import load_registry


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_record() -> OpsRecord:
    """Every row of preset `tiny` on the CPU, but for the compiled ones."""
    request = OpsRequest(
        presets=("tiny",), passes=2, repeats=1, seconds=0.0, cache="warm", compile=False
    )
    return record_ops(request, load_registry(), device="cpu")
