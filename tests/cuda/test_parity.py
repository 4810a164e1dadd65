"""Every implementation that runs on the CPU, against the suite that all backends answer to.

Interpreted kernels are slow, so each case runs in float32 and in one more dtype, in turn; over an
operator's cases all dtypes come up. `stepvideo parity --backend cuda` runs the full matrix.
"""

from __future__ import annotations

import os

import pytest
import torch

from stepvideo_core.dispatch import BackendRegistry
from stepvideo_core.testing import CASES, Case, check
from stepvideo_core.testing.parity import eager_of

CPU = torch.device("cpu")
_OTHER = (torch.bfloat16, torch.float16, torch.float64)
_ON_CPU = {"causal_conv3d": "channels_last", "conv2d": "channels_last", "linear": "torch"}


def _grid() -> list[object]:
    rows = []
    for index, case in enumerate(CASES):
        impl = _ON_CPU.get(case.op.name, "triton")
        for dtype in (torch.float32, _OTHER[index % 3]):
            name = str(dtype).removeprefix("torch.")
            label = f"{case.op.name}-{case.site.name}-{impl}-{name}-{case.name}"
            rows.append(pytest.param(case, impl, dtype, id=label))
    return rows


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy, on NaN and large logits
@pytest.mark.parametrize(("case", "impl_name", "dtype"), _grid())
def test_parity(registry: BackendRegistry, case: Case, impl_name: str, dtype: torch.dtype) -> None:
    impl = next(
        impl
        for impl in registry.implementations("cuda")
        if impl.op is case.op and impl.name == impl_name
    )
    result = check(impl, f"cuda:{impl_name}", case, dtype, CPU, eager_of(registry, case.op.name))
    if case.op.name == "attention" and dtype == torch.float64:
        assert result.status == "skipped" and "float32" in result.reasons[0]
        return
    assert result.status == "passed", result.reasons


def test_everything_that_can_run_here_is_covered(registry: BackendRegistry) -> None:
    assert os.environ["TRITON_INTERPRET"] == "1"
    site = {case.op.name: case.site for case in CASES}
    covered = {(case.op.name, _ON_CPU.get(case.op.name, "triton")) for case in CASES}
    runnable = {
        (impl.op.name, impl.name)
        for impl in registry.implementations("cuda")
        if not impl.why_not(site[impl.op.name])
    }
    assert runnable == covered
