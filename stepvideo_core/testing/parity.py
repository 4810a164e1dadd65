"""Judging implementations: error against float64, within a budget that the dtype sets.

Truth is the fallback backend's `eager` implementation in float64 on the very inputs that the
implementation gets (already rounded to its dtype). An implementation may err by at most
max(floor of the dtype, 2 x what `eager` itself errs in that dtype); errors are the largest absolute
difference over the largest absolute value of the truth.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from stepvideo_core.dispatch.registry import ANY_DEVICE, Backend, BackendRegistry
from stepvideo_core.ops import OpImpl
from stepvideo_core.testing.case import Case
from stepvideo_core.testing.cases import CASES

FLOORS: dict[torch.dtype, float] = {
    torch.float64: 1e-12,
    torch.float32: 2e-6,
    torch.float16: 1e-3,
    torch.bfloat16: 8e-3,
}
"""A few roundings of the dtype, relative to the largest value."""

DTYPES: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


@dataclass(frozen=True, kw_only=True)
class ParityResult:
    """One row of `stepvideo parity --json`."""

    op: str
    site: str
    impl: str
    dtype: str
    case: str
    status: Literal["passed", "failed", "skipped"]
    error: float | None = None
    budget: float | None = None
    reasons: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return f"{self.op}-{self.site}-{self.impl}-{self.dtype}-{self.case}"

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"reasons": list(self.reasons)}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> ParityResult:
        """The row of which `as_json` made an object."""
        return cls(**row | {"reasons": tuple(row["reasons"])})


def eager_of(registry: BackendRegistry, op: str) -> OpImpl[Any]:
    """The implementation that defines an operator: the fallback backend's `eager`."""
    for backend in registry:
        if backend.fallback:
            for impl in registry.implementations(backend.name):
                if impl.op.name == op and impl.name == "eager":
                    return impl
    raise LookupError(f"no fallback backend defines {op!r}")


def check(
    impl: OpImpl[Any],
    address: str,
    case: Case,
    dtype: torch.dtype,
    device: torch.device,
    eager: OpImpl[Any],
) -> ParityResult:
    """Run one implementation on one case and judge it."""
    site = replace(case.site, device=device, dtype=dtype)
    row = ParityResult(
        op=case.op.name,
        site=case.site.name,
        impl=address,
        dtype=str(dtype).removeprefix("torch."),
        case=case.name,
        status="skipped",
    )
    reasons = impl.why_not(site)
    if reasons:
        return replace(row, reasons=tuple(reasons))
    rounded = case.arguments(dtype, torch.device("cpu"))
    truth = _tensors(eager.fn(*(_to_float64(value) for value in rounded)))
    own_error = _error(_tensors(eager.fn(*rounded)), truth)[0]
    budget = max(FLOORS[dtype], 2 * own_error)
    with torch.no_grad():
        arguments = case.arguments(dtype, device)
        before = [value.clone() for value in arguments if isinstance(value, Tensor)]
        results = _tensors(impl.fn(*arguments))
        after = [value for value in arguments if isinstance(value, Tensor)]
    error, complaints = _error(results, truth)
    complaints += [
        f"result {index} has dtype {result.dtype}, not {dtype}"
        for index, result in enumerate(results)
        if result.dtype != dtype
    ]
    if not all(_same_values(old, new) for old, new in zip(before, after, strict=True)):
        complaints.append("it changed its inputs")
    if not error <= budget:
        complaints.append(f"error {error:.3g} exceeds the budget {budget:.3g}")
    return replace(
        row,
        status="failed" if complaints else "passed",
        error=error,
        budget=budget,
        reasons=tuple(complaints),
    )


def refused_everywhere(
    impl: OpImpl[Any], device: torch.device, dtypes: Sequence[torch.dtype] = DTYPES
) -> list[str]:
    """The reasons that an implementation gives at every site of its operator, in every dtype.

    Empty if it serves any of them: then it is at work here. A library that is missing or broken
    shows up like this.
    """
    refusals = [
        impl.why_not(replace(case.site, device=device, dtype=dtype))
        for case in CASES
        if case.op is impl.op
        for dtype in dtypes
    ]
    if not refusals or not all(refusals):
        return []
    common = [text for text in refusals[0] if all(text in others for others in refusals)]
    return common or ["it refuses every call site of the model, for different reasons"]


def run_parity(
    registry: BackendRegistry,
    *,
    backends: Sequence[str] | None = None,
    ops: Sequence[str] | None = None,
    dtypes: Sequence[torch.dtype] = DTYPES,
    cases: Iterable[Case] = CASES,
) -> Iterator[ParityResult]:
    """Every case x implementation x dtype of the given backends, on each backend's device.

    backends: names; None means all that can work here. Rows come as they are measured.
    """
    names = list(backends) if backends is not None else registry.names
    chosen = [case for case in cases if ops is None or case.op.name in ops]
    for name in names:
        backend = registry.get(name)
        for impl in registry.implementations(name):
            for case in chosen:
                if case.op is impl.op:
                    eager = eager_of(registry, case.op.name)
                    for dtype in dtypes:
                        yield check(
                            impl, f"{name}:{impl.name}", case, dtype, device_of(backend), eager
                        )


def _same_values(old: Tensor, new: Tensor) -> bool:
    return torch.allclose(old, new, rtol=0.0, atol=0.0, equal_nan=True)


def device_of(backend: Backend) -> torch.device:
    """Where a backend's parity is judged: on its own device, or the CPU if any will do."""
    return torch.device("cpu" if backend.device_type == ANY_DEVICE else backend.device_type)


def _to_float64(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) else value


def _tensors(result: Any) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else tuple(result)


def _error(results: tuple[Tensor, ...], truths: tuple[Tensor, ...]) -> tuple[float, list[str]]:
    """The largest relative error over all results, and what else is wrong with them."""
    if len(results) != len(truths):
        return math.inf, [f"{len(results)} results instead of {len(truths)}"]
    worst, complaints = 0.0, []
    for index, (result, truth) in enumerate(zip(results, truths, strict=True)):
        if result.shape != truth.shape:
            complaints.append(
                f"result {index} has shape {list(result.shape)}, not {list(truth.shape)}"
            )
            worst = math.inf
            continue
        ours, theirs = result.detach().cpu().double(), truth.detach().cpu().double()
        if not torch.equal(torch.isnan(ours), torch.isnan(theirs)):
            complaints.append(f"result {index} has NaN where the truth has none, or hides one")
            worst = math.inf
            continue
        scale = theirs.nan_to_num().abs().max().item() or 1.0
        difference = (ours - theirs).nan_to_num(nan=0.0).abs().max().item()
        worst = max(worst, difference / scale)
    return worst, complaints
