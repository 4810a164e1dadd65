"""Every implementation of the backend on the virtual device, against the suite of all backends."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from stepvideo_core.plugins import load_registry
from stepvideo_core.testing import CASES, Case, check
from stepvideo_core.testing.parity import eager_of

NPU = torch.device("npu", 0)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
IMPLEMENTATIONS = (
    ("linear", "torch"),
    ("attention", "fusion"),
    ("attention", "fused_infer"),
    ("attention", "chunked"),
    ("rms_norm", "fused"),
    ("group_norm_silu", "fused"),
    ("rope_3d", "rotary"),
    ("adaln_modulate", "native"),
    ("gated_residual", "native"),
    ("gelu_tanh", "fused"),
    ("causal_conv3d", "torch"),
    ("conv2d", "torch"),
    ("pixel_unshuffle_add", "framewise"),
    ("pixel_shuffle_add", "framewise"),
)
# For an inference card, which test_ascend_run has, and for MindIE-SD, which needs CANN.
ELSEWHERE = {("attention", "prompt_flash"), ("attention", "mindie")}


def _refused(name: str, case: Case, dtype: torch.dtype) -> bool:
    """What the documentation excludes: a position bias, and float32 for inference."""
    if name == "fused_infer" and dtype == torch.float32:
        return True
    return name in ("fusion", "fused_infer") and case.site.name == "step_llm.self"


def _rows() -> list[Any]:
    return [
        pytest.param(name, case, dtype, id=f"{case.id}-{name}-{str(dtype).removeprefix('torch.')}")
        for op, name in IMPLEMENTATIONS
        for case in CASES
        if case.op.name == op
        for dtype in DTYPES
    ]


@pytest.mark.parametrize(("name", "case", "dtype"), _rows())
def test_parity(name: str, case: Case, dtype: torch.dtype) -> None:
    registry = load_registry()
    (impl,) = (
        impl for impl in registry.implementations("npu") if impl.op is case.op and impl.name == name
    )
    eager = eager_of(registry, case.op.name)
    result = check(impl, f"npu:{name}", case, dtype, NPU, eager)
    expected = "skipped" if _refused(name, case, dtype) else "passed"
    assert result.status == expected, result.reasons


def test_nothing_is_left_out() -> None:
    registry = load_registry()
    assert registry.why_not("npu") == []
    mine = {(impl.op.name, impl.name) for impl in registry.implementations("npu")}
    assert mine == {*IMPLEMENTATIONS, *ELSEWHERE}
    # The plan composes the one operator that has no implementation of its own.
    assert {case.op.name for case in CASES} - {op for op, _ in mine} == {"qk_norm_rope"}
