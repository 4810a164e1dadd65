"""Parity in production: a second implementation runs beside the chosen one."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stepvideo_core.ops.contract import F


@dataclass(kw_only=True)
class ShadowRecord:
    """The largest difference seen between an implementation and its shadow at one site."""

    op: str
    site: str
    impl: str
    shadow: str
    calls: int = 0
    max_abs: float = 0.0
    max_rel: float = 0.0
    """Largest absolute difference over the largest absolute value of the shadow's result."""
    nonfinite: int = 0
    """Calls in which only one of the two gave NaN or infinity somewhere."""

    def update(self, result: Tensor, truth: Tensor) -> None:
        result, truth = result.detach().double(), truth.detach().double()
        finite = torch.isfinite(result) & torch.isfinite(truth)
        if not torch.equal(torch.isfinite(result), torch.isfinite(truth)):
            self.nonfinite += 1
        difference = torch.where(finite, result - truth, 0.0).abs().max().item()
        scale = torch.where(finite, truth, 0.0).abs().max().item()
        self.max_abs = max(self.max_abs, difference)
        self.max_rel = max(self.max_rel, difference / scale if scale else difference)


class ShadowMonitor:
    """Collects one record per watched site."""

    def __init__(self) -> None:
        self.records: list[ShadowRecord] = []

    def watch(self, op: str, site: str, impl: str, fn: F, shadow: str, shadow_fn: F) -> F:
        """Wrap `fn` so that each call is repeated by `shadow_fn`; the result is `fn`'s."""
        record = ShadowRecord(op=op, site=site, impl=impl, shadow=shadow)
        self.records.append(record)

        @functools.wraps(fn)
        def watched(*args: Any, **kwargs: Any) -> Any:
            result = fn(*args, **kwargs)
            truth = shadow_fn(*args, **kwargs)
            record.calls += 1
            pairs = (
                [(result, truth)] if isinstance(result, Tensor) else zip(result, truth, strict=True)
            )
            for ours, theirs in pairs:
                # The float64 copies of the record need a device that has float64.
                record.update(ours.cpu(), theirs.cpu())
            return result

        return watched  # type: ignore[return-value]
