"""How far off a measured result is: the truth of a call, where it can be had, and the error."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import psutil
import torch
from torch import Tensor

from stepvideo_bench.calls import Call
from stepvideo_bench.footprint import workspace_bytes
from stepvideo_core.dispatch import BackendRegistry
from stepvideo_core.memory.estimate import available_memory
from stepvideo_core.memory.units import format_bytes
from stepvideo_core.testing.parity import eager_of

# The definition in float64 on the host does about 1e10 operations a second.
_MAX_HOST_FLOPS = 2e10
_MAX_HOST_BYTES = 1 << 30


@dataclass(frozen=True)
class Truth:
    """Results to compare with, on the host in float64; or why there are none."""

    results: tuple[Tensor, ...] | None
    how: str

    def error(self, result: Any) -> tuple[float, float] | None:
        """(largest absolute error, the same over the truth's largest value); None without truth.

        Infinite where shapes differ or only one of the two is finite.
        """
        if self.results is None:
            return None
        found = tensors(result)
        worst = largest = 0.0
        for ours, theirs in zip(found, self.results, strict=True):
            ours = ours.detach().cpu().double()
            if ours.shape != theirs.shape or not torch.equal(ours.isfinite(), theirs.isfinite()):
                return math.inf, math.inf
            worst = max(worst, (ours - theirs).nan_to_num().abs().max().item())
            largest = max(largest, theirs.nan_to_num().abs().max().item())
        return worst, worst / (largest or 1.0)


def tensors(result: Any) -> tuple[Tensor, ...]:
    """The tensors of an operator's result."""
    return (result,) if isinstance(result, Tensor) else tuple(result)


def find_truth(
    registry: BackendRegistry, call: Call, arguments: tuple[Any, ...], device: torch.device
) -> Truth:
    """The definition in float64 on the host; a float32 variant on the device for large calls.

    On the host itself a large call has no truth: `stepvideo parity` judges it at small sizes.
    """
    eager = eager_of(registry, call.op.name)
    item = max(spec.dtype.itemsize for spec in call.specs)
    need = (call.num_bytes + workspace_bytes(eager.fn, call)) * 8 // item
    on_host = min(psutil.virtual_memory().available // 2, _MAX_HOST_BYTES)
    if call.cost.flops <= _MAX_HOST_FLOPS and need <= on_host:
        return Truth(_compute(eager.fn, arguments, torch.float64, torch.device("cpu")), "float64")
    if device.type == "cpu":
        work = f"{call.cost.flops / 1e9:.0f} GFLOP and {format_bytes(need)}"
        return Truth(None, f"not checked: the float64 definition would take {work}")
    for backend in registry:
        if backend.fallback:
            site = replace(call.site, device=device, dtype=torch.float32)
            impls = [impl for impl in registry.implementations(backend.name) if impl.op is call.op]
            for impl in sorted(impls, key=lambda impl: impl.rank):
                need = 2 * workspace_bytes(impl.fn, call)
                if not impl.why_not(site) and need < available_memory(device) // 2:
                    results = _compute(impl.fn, arguments, torch.float32, device)
                    return Truth(results, f"float32 {backend.name}:{impl.name}")
    return Truth(None, "not checked: no definition fits the device in float32")


def _compute(
    fn: Any, arguments: tuple[Any, ...], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, ...]:
    widened = (
        value.to(device, dtype) if isinstance(value, Tensor) else value for value in arguments
    )
    with torch.no_grad():
        results = tensors(fn(*widened))
    return tuple(result.cpu().double() for result in results)
