"""One quick run of `bench ops`, shared by the tests of what is made of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from stepvideo_bench.ops import OpsRequest
from stepvideo_bench.record import record_ops
from stepvideo_bench.rows import OpsRecord
from stepvideo_bench.timing import Effort
from stepvideo_core.plugins import load_registry

QUICK = Effort(repeats=2, seconds=0.0, min_samples=2)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_record() -> OpsRecord:
    """Every row of preset `tiny` on the CPU, but for the compiled ones."""
    request = OpsRequest(presets=("tiny",), effort=QUICK, cache="warm", compile=False)
    return record_ops(request, load_registry(), device="cpu")
