"""Every implementation of the backend on the virtual device, against the suite of all backends."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from stepvideo_core.ops import OpImpl
from stepvideo_core.plugins import load_registry
from stepvideo_core.testing import CASES, Case, check
from stepvideo_core.testing.parity import eager_of

NPU = torch.device("npu", 0)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Implementations that this machine and this chip cannot have: no MindIE-SD, not an inference card.
ELSEWHERE = {"mindie", "prompt_flash"}
REFUSED = {
    ("fusion", "step_llm.self"),
    ("fused_infer", "step_llm.self"),
}


def _rows() -> list[Any]:
    registry = load_registry()
    assert registry.why_not("npu") == []
    return [
        pytest.param(impl, case, dtype, id=f"{case.id}-{impl.name}-{str(dtype)[6:]}")
        for impl in registry.implementations("npu")
        for case in CASES
        if case.op is impl.op and impl.name not in ELSEWHERE
        for dtype in DTYPES
    ]


@pytest.mark.parametrize(("impl", "case", "dtype"), _rows())
def test_parity(impl: OpImpl[Any], case: Case, dtype: torch.dtype) -> None:
    eager = eager_of(load_registry(), case.op.name)
    result = check(impl, f"npu:{impl.name}", case, dtype, NPU, eager)
    refused = (impl.name, case.site.name) in REFUSED
    if impl.name == "fused_infer" and dtype == torch.float32:
        refused = True
    assert result.status == ("skipped" if refused else "passed"), result.reasons


def test_every_operator_has_an_implementation_or_a_composition() -> None:
    mine = {impl.op.name for impl in load_registry().implementations("npu")}
    wanted = {case.op.name for case in CASES}
    assert wanted - mine == {"qk_norm_rope"}
