"""Collectives on device tensors, served by gloo: each is the CPU collective on the same memory.

Backend `hccl` is gloo here, so that programs keep their `cpu:gloo,npu:hccl`; alone, without a
backend for the CPU, it serves nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from stepvideo_virtual_npu.device.aliasing import is_on_device
from stepvideo_virtual_npu.device.executor import KEY, find_overload, run_on_device
from stepvideo_virtual_npu.errors import PolicyViolation
from stepvideo_virtual_npu.recording import record

_installed: list[torch.library.Library] = []  # a library that is dropped takes its kernels along


def _kernel(op: torch._ops.OpOverload) -> Callable[..., Any]:
    def collective(*args: Any, **kwargs: Any) -> Any:
        record(op, args, kwargs, meta=False)
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, Tensor) and is_on_device(tensor):
                _check(op, tensor)
        return run_on_device(op, args, kwargs)

    return collective


def _check(op: torch._ops.OpOverload, tensor: Tensor) -> None:
    """HCCL's own limits."""
    if not tensor.is_contiguous():
        raise PolicyViolation(f"{op.name()}: HCCL takes contiguous tensors only")
    if tensor.is_complex():
        raise PolicyViolation(f"{op.name()}: HCCL has no complex dtypes")


def install_collectives() -> None:
    """Let process groups take tensors of the virtual device."""
    backends = torch.distributed.Backend
    backends._plugins["HCCL"] = backends._BackendPlugin(_gloo_group, True)
    library = torch.library.Library("c10d", "IMPL")
    _installed.append(library)
    for name in torch._C._dispatch_get_all_op_names():
        if name.startswith("c10d::") and torch._C._dispatch_has_kernel_for_dispatch_key(name, KEY):
            op = find_overload(name)
            if op is not None:
                library.impl(name.removeprefix("c10d::"), _kernel(op), KEY, allow_override=True)


def _gloo_group(options: Any, _: Any) -> Any:
    """What torch calls for backend `hccl`, with its own options for extensions."""
    return torch.distributed.ProcessGroupGloo(
        options.store, options.group_rank, options.group_size, options.timeout
    )
