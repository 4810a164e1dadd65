"""How much memory a call will take, found out on the meta device, before anything is allocated."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from stepvideo_bench.calls import Call, TensorSpec


class _LiveBytes(TorchDispatchMode):
    """Follows the storages that torch operators make, and the most that lived at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self._follow(value.untyped_storage())
        self.peak = max(self.peak, self.now)
        return result

    def ignore(self, value: Tensor) -> None:
        """Do not count a tensor that was there before."""
        self._alive.add(value.untyped_storage()._cdata)

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._alive:
            self._alive.add(key)
            self.now += size
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.now -= size


def workspace_bytes(fn: Callable[..., Any], call: Call) -> int:
    """Bytes that a call needs beside its arguments at its peak, results included.

    Exact for functions made of torch operators. For one that leaves torch (a kernel of its own,
    NumPy) it is the size of the arguments: a result and its share of scratch.
    """
    arguments = tuple(
        torch.empty(value.shape, dtype=value.dtype, device="meta")
        if isinstance(value, TensorSpec)
        else value
        for value in call.arguments
    )
    live = _LiveBytes()
    for value in arguments:
        if isinstance(value, Tensor):
            live.ignore(value)
    try:
        with torch.no_grad(), live:
            fn(*arguments)
    # What cannot work without values says so in its own way; what is broken fails again, and is
    # reported, when it is measured.
    except Exception:  # noqa: BLE001
        return call.num_bytes
    return live.peak
