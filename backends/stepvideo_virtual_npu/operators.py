"""Putting contracts and CPU kernels under the vendor's own `npu::` schemas, level by level."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch._library import simple_registry
from torch.utils._pytree import tree_leaves

from stepvideo_virtual_npu.arguments import bind
from stepvideo_virtual_npu.contracts import CONTRACTS
from stepvideo_virtual_npu.device.executor import KEY, find_overload, run_on_device
from stepvideo_virtual_npu.device.policy import check_native_call
from stepvideo_virtual_npu.errors import NotModelled
from stepvideo_virtual_npu.kernels import KERNELS
from stepvideo_virtual_npu.recording import record, recorded
from stepvideo_virtual_npu.soc import Soc

_installed: list[torch.library.Library] = []  # a library that is dropped takes its kernels along

# Not operators of a model: torch_npu's own bookkeeping of storage formats, right as it is.
_KEPT = frozenset({"get_npu_format", "get_storage_size", "copy_memory_", "empty_with_format"})


def vendor_operators() -> list[torch._ops.OpOverload]:
    """Every overload in the `npu` namespace of the installed torch_npu."""
    names = torch._C._dispatch_get_all_op_names()
    found = (find_overload(name) for name in names if name.startswith("npu::"))
    return [op for op in found if op is not None]


def _name(op: torch._ops.OpOverload) -> str:
    """The contract's name of an operator; overloads other than the default have none."""
    return op.name().removeprefix("npu::")


def install_shape_functions(soc: Soc, vendor: Mapping[str, Callable[..., Any]]) -> None:
    """Check contracts before the vendor's shape functions, for meta and fake tensors.

    vendor: those functions by operator, as noted while torch_npu was imported.
    """
    library = torch.library.Library("npu", "IMPL")
    _installed.append(library)
    for op in vendor_operators():
        name = _name(op)
        if not torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), "Meta"):
            continue
        fake = simple_registry.singleton.find(op.name()).fake_impl.kernel
        if name not in CONTRACTS:
            library.impl(name, _refusal(op), "Meta", allow_override=True)
        elif fake is not None:
            checked = _checked_shape_function(op, soc, fake.func)
            torch.library.register_fake(op, checked, lib=library, allow_override=True)
        else:
            checked = _checked_shape_function(op, soc, vendor[name])
            library.impl(name, checked, "Meta", allow_override=True)


def _checked_shape_function(
    op: torch._ops.OpOverload, soc: Soc, vendor: Callable[..., Any]
) -> Callable[..., Any]:
    def shape_function(*args: Any, **kwargs: Any) -> Any:
        record(op, args, kwargs, meta=True)
        CONTRACTS[_name(op)].check(bind(op._schema, args, kwargs), soc)
        return vendor(*args, **kwargs)

    return shape_function


def _refusal(op: torch._ops.OpOverload) -> Callable[..., Any]:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise NotModelled(
            f"{op.name()} is not modelled: stepvideo_virtual_npu has no contract for it"
        )

    return refuse


def checked_kernel(op: torch._ops.OpOverload, soc: Soc) -> Callable[..., Any]:
    """A function of CPU tensors with the operator's parameters: contract first, then the kernel."""
    contract, kernel = CONTRACTS[_name(op)], KERNELS[_name(op)]

    def compute(*args: Any, **kwargs: Any) -> Any:
        call = bind(op._schema, args, kwargs)
        contract.check(call, soc)
        return kernel(call)

    return compute


def install_cpu_kernels(soc: Soc) -> None:
    """Let `npu::` operators compute on CPU tensors."""
    library = torch.library.Library("npu", "IMPL")
    _installed.append(library)
    for op in vendor_operators():
        if _name(op) in KERNELS:
            library.impl(_name(op), recorded(op, checked_kernel(op, soc)), "CPU")


def install_device_kernels(soc: Soc) -> None:
    """Let `npu::` operators compute on the virtual device; those without a contract are refused."""
    library = torch.library.Library("npu", "IMPL")
    _installed.append(library)
    for op in vendor_operators():
        name = _name(op)
        if not torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), KEY) or name in _KEPT:
            continue
        kernel = _device_kernel(op, soc) if name in KERNELS else _refusal(op)
        library.impl(name, kernel, KEY, allow_override=True)


def _device_kernel(op: torch._ops.OpOverload, soc: Soc) -> Callable[..., Any]:
    compute = checked_kernel(op, soc)

    def kernel(*args: Any, **kwargs: Any) -> Any:
        record(op, args, kwargs, meta=False)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        check_native_call(_name(op), tensors, soc)
        return run_on_device(op, args, kwargs, compute)

    return kernel


def install_device_refusals(level: str) -> None:
    """Below level `device` nothing computes on `npu:0`: say so, instead of failing far below."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise NotModelled(
            f"level {level} of the virtual NPU computes nothing on npu:0; use meta, fake or CPU "
            "tensors, or activate it with level='device'"
        )

    for namespace in ("aten", "npu"):
        library = torch.library.Library(namespace, "IMPL")
        _installed.append(library)
        for full_name in torch._C._dispatch_get_all_op_names():
            op = find_overload(full_name) if full_name.startswith(f"{namespace}::") else None
            if (
                op is not None
                and not op.is_view
                and "empty" not in full_name
                and torch._C._dispatch_has_kernel_for_dispatch_key(full_name, KEY)
            ):
                library.impl(
                    full_name.removeprefix(f"{namespace}::"), refuse, KEY, allow_override=True
                )
