"""Every implementation that can run here, on every case, in every dtype, against float64."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from stepvideo_core.dispatch import BackendRegistry
from stepvideo_core.ops import CONTRACTS, OpImpl
from stepvideo_core.plugins import load_registry
from stepvideo_core.testing import CASES, FLOORS, Case, check, run_parity
from stepvideo_core.testing.parity import DTYPES, eager_of

CPU = torch.device("cpu")


def _rows() -> list[Any]:
    registry = load_registry()
    rows = []
    for backend in registry:
        if backend.device_type not in ("any", "cpu"):
            continue
        for impl in registry.implementations(backend.name):
            for case in CASES:
                if case.op is impl.op:
                    for dtype in DTYPES:
                        address = f"{backend.name}:{impl.name}"
                        name = str(dtype).removeprefix("torch.")
                        rows.append(
                            pytest.param(
                                impl, address, case, dtype, id=f"{case.id}-{address}-{name}"
                            )
                        )
    return rows


@pytest.mark.parametrize(("impl", "address", "case", "dtype"), _rows())
def test_parity(impl: OpImpl[Any], address: str, case: Case, dtype: torch.dtype) -> None:
    result = check(impl, address, case, dtype, CPU, eager_of(load_registry(), case.op.name))
    if result.status == "skipped":
        pytest.skip("; ".join(result.reasons))
    assert result.status == "passed", result.reasons


def test_every_operator_has_cases_and_a_meaning() -> None:
    covered = Counter(case.op.name for case in CASES)
    assert set(covered) == set(CONTRACTS)
    assert min(covered.values()) >= 3, covered
    for name in CONTRACTS:
        assert eager_of(load_registry(), name).rank == 0


def test_case_names_are_unique() -> None:
    assert max(Counter(case.id for case in CASES).values()) == 1


def _case(op: str) -> Case:
    return next(case for case in CASES if case.op.name == op and case.poisoned is None)


def _judge(case: Case, fn: Any, dtype: torch.dtype = torch.float32) -> Any:
    eager = eager_of(load_registry(), case.op.name)
    return check(OpImpl(op=case.op, name="planted", fn=fn), "x:planted", case, dtype, CPU, eager)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_planted_error_is_found(dtype: torch.dtype) -> None:
    """Three floors off in a single element is enough to fail."""
    case = _case("gated_residual")
    eager = eager_of(load_registry(), "gated_residual").fn

    def off(x_BSD: Any, y_BSD: Any, gate_BD: Any) -> Any:
        out = eager(x_BSD, y_BSD, gate_BD)
        out.view(-1)[7] += 3 * FLOORS[dtype] * out.abs().max()
        return out

    result = _judge(case, off, dtype)
    assert result.status == "failed"
    assert "exceeds the budget" in result.reasons[0]
    assert _judge(case, eager, dtype).status == "passed"


def test_wrong_behaviour_is_named() -> None:
    case = _case("gelu_tanh")
    eager = eager_of(load_registry(), "gelu_tanh").fn
    nan = next(case for case in CASES if case.id == "rms_norm-dit.cross-nan")
    rms = eager_of(load_registry(), "rms_norm").fn
    assert "changed its inputs" in str(_judge(case, lambda x: x.copy_(eager(x))).reasons)
    assert "has dtype" in str(_judge(case, lambda x: eager(x).double()).reasons)
    assert "has shape" in str(_judge(case, lambda x: eager(x)[:1]).reasons)
    assert "2 results instead of 1" in str(_judge(case, lambda x: (x, x)).reasons)
    hidden = _judge(nan, lambda x, weight, eps: rms(x, weight, eps).nan_to_num())
    assert "NaN" in str(hidden.reasons)
    erf = torch.nn.functional.gelu
    assert _judge(case, lambda x: erf(x)).status == "failed", "erf and tanh must be told apart"


def test_a_refusal_is_skipped_with_its_reasons() -> None:
    case = _case("rms_norm")
    impl: OpImpl[Any] = OpImpl(
        op=case.op, name="shy", fn=None, why_not=lambda site: [f"width {site.width} is too wide"]
    )
    eager = eager_of(load_registry(), "rms_norm")
    result = check(impl, "x:shy", case, torch.float32, CPU, eager)
    assert result.status == "skipped"
    assert result.reasons == ("width 128 is too wide",)


def test_run_parity_selects() -> None:
    rows = list(
        run_parity(load_registry(), backends=["reference"], ops=["rope_3d"], dtypes=[torch.float32])
    )
    assert {row.op for row in rows} == {"rope_3d"}
    assert {row.dtype for row in rows} == {"float32"}
    assert {row.status for row in rows} == {"passed"}


def test_an_empty_registry_defines_nothing() -> None:
    with pytest.raises(LookupError, match="rope_3d"):
        eager_of(BackendRegistry(), "rope_3d")
