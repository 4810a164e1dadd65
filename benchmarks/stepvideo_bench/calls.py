"""Every operator call of the models, recorded without computing: shapes, counts, costs.

The models run on the meta device with a plan that writes down what passes through it. So the
benchmark and the predictions know exactly the calls that a run makes, and an operator that is added
to a model is in both from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from stepvideo_core.dispatch import BackendRegistry, DispatchPlan, DispatchPolicy
from stepvideo_core.ops import CONTRACTS
from stepvideo_core.ops.contract import F, OpContract, Site
from stepvideo_core.ops.cost import Cost

# Values beside the tensors that change the work, and those of them that go without saying.
_TELLING = ("front_frames", "stride", "key_lengths", "per_frame")
_USUAL = (None, 0, 1, (1, 1, 1), True)


@dataclass(frozen=True)
class TensorSpec:
    """Shape and dtype of a tensor argument."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def num_bytes(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize

    def __str__(self) -> str:
        return "x".join(map(str, self.shape))


@dataclass(frozen=True)
class Call:
    """One distinct call: an operator at a site, with the shapes and values of its arguments."""

    op: OpContract[Any]
    site: Site
    arguments: tuple[Any, ...]
    cost: Cost = field(compare=False)

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        return tuple(value for value in self.arguments if isinstance(value, TensorSpec))

    @property
    def shape(self) -> str:
        """What tells this call from others of its operator and site: `1x75888x6144 24576x6144`."""
        wide = [spec for spec in self.specs if len(spec.shape) > 1]
        texts = [str(spec) for spec in wide or self.specs]
        for name, value in zip(self.op.parameters, self.arguments, strict=True):
            if name in _TELLING and value not in _USUAL:
                size = "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
                texts.append(f"{name}={size}")
        return " ".join(texts)

    @property
    def num_bytes(self) -> int:
        """Bytes of the tensor arguments."""
        return sum(spec.num_bytes for spec in self.specs)


class CallLog(TorchDispatchMode):
    """Collects calls of operators, and the cost of everything that a model computes beside them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: dict[Call, int] = {}
        self.outside = Cost()
        self._inside = 0

    @property
    def cost(self) -> Cost:
        """All that was logged."""
        return sum((call.cost * count for call, count in self.calls.items()), self.outside)

    def add(self, contract: OpContract[Any], site: Site, arguments: tuple[Any, ...]) -> None:
        """Count one call; its tensors are remembered by shape only."""
        shapes = tuple(
            TensorSpec(tuple(value.shape), value.dtype) if isinstance(value, Tensor) else value
            for value in arguments
        )
        call = Call(contract, site, shapes, contract.cost(*arguments))
        self.calls[call] = self.calls.get(call, 0) + 1

    def watch(self, contract: OpContract[F], site: Site, fn: F) -> F:
        """`fn`, logged as an operator; what it does inside is not logged again."""

        def watched(*arguments: Any) -> Any:
            self.add(contract, site, arguments)
            self._inside += 1
            try:
                return fn(*arguments)
            finally:
                self._inside -= 1

        return watched  # type: ignore[return-value]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self._inside:
            self.outside += _aten_cost(func, args, kwargs or {}, result)
        return result


def _aten_cost(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Cost:
    """Inputs and outputs of a torch operator once each; nothing for views and fresh constants."""
    inputs = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
    outputs = [value for value in tree_leaves(result) if isinstance(value, Tensor)]
    storages = {value.untyped_storage()._cdata for value in inputs}
    is_view = all(value.untyped_storage()._cdata in storages for value in outputs)
    if not inputs or (is_view and not func._schema.is_mutable):
        return Cost()
    count = flop_registry.get(func._overloadpacket)
    flops = int(count(*args, **kwargs, out_val=result)) if count is not None else 0
    return Cost(flops, sum(_touched_bytes(value) for value in (*inputs, *outputs)))


def _touched_bytes(value: Tensor) -> int:
    """Bytes of the elements; a broadcast one is read once."""
    return min(value.numel() * value.element_size(), value.untyped_storage().nbytes())


class RecordingPlan(DispatchPlan):
    """A plan of the operators' definitions on the meta device, whose calls go through a log."""

    def __init__(self, registry: BackendRegistry, dtype: torch.dtype) -> None:
        if torch.is_inference_mode_enabled():
            # There torch keeps `linear` whole, for which its counter has no entry.
            raise RuntimeError("calls are not counted in full under torch.inference_mode")
        fallback = next(backend.name for backend in registry if backend.fallback)
        # The definitions take one step each; other variants may loop over rows or frames.
        definitions = [f"{name}={fallback}:eager" for name in CONTRACTS]
        policy = DispatchPolicy.parse(backend=fallback, ops=definitions)
        super().__init__(registry, policy, device=torch.device("meta"), dtype=dtype)
        self.log = CallLog()

    def bind(self, contract: OpContract[F], site: Site) -> F:
        fn = super().bind(contract, site)

        def logged(*arguments: Any) -> Any:
            return self.log.watch(contract, site, fn)(*arguments)

        return logged  # type: ignore[return-value]

    def record(self, call: Callable[[], object]) -> CallLog:
        """The log of one call of a model that was built with this plan."""
        self.log = CallLog()
        with torch.no_grad(), self.log:
            call()
        return self.log


def heaviest(log: CallLog, per_site: int | None) -> Iterator[tuple[Call, int]]:
    """The calls with most traffic and work of each operator at each site, with their counts."""
    groups: dict[tuple[str, str], list[tuple[Call, int]]] = {}
    for call, count in log.calls.items():
        groups.setdefault((call.op.name, call.site.name), []).append((call, count))
    for group in groups.values():
        # 300 FLOP weigh as much as a byte: the balance of today's accelerators, within a factor 2.
        group.sort(key=lambda item: -item[1] * (item[0].cost.flops / 300 + item[0].cost.num_bytes))
        yield from group[:per_site]
