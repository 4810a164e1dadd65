"""Running a native operator on device memory with torch's CPU kernel, and installing that.

Every `aten` kernel that torch_npu registers for the NPU is replaced: borrow the device tensors as
CPU tensors, call the operator, put the results back. In-place and `out=` forms write through, since
the memory is shared. What has no kernel there keeps none, so it fails as on the device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from stepvideo_virtual_npu.device.aliasing import DEVICE_TYPE, Borrowed, is_on_device
from stepvideo_virtual_npu.device.copies import copy_kernels
from stepvideo_virtual_npu.device.generators import cpu_generator
from stepvideo_virtual_npu.device.native import substitutes
from stepvideo_virtual_npu.device.policy import check_native_call
from stepvideo_virtual_npu.recording import record, recorded
from stepvideo_virtual_npu.soc import Soc

KEY = "PrivateUse1"

# torch_npu's own kernels do these rightly on host memory: they allocate, or change only a tensor's
# description. Views are recognised by their schema and are kept as well. The attention of torch is
# kept because torch_npu decides in it, by shape, dtype and mask, which operators to call.
_KEPT = frozenset(
    """
empty empty_strided empty_like new_empty new_empty_strided empty_with_format
empty_with_swapped_memory resize_ resize_as_ native_resize_ set_ record_stream pin_memory
_pin_memory is_pinned is_set_to _has_compatible_shallow_copy_type _reshape_alias _storage_access
scaled_dot_product_attention
""".split()
)

_installed: list[torch.library.Library] = []  # a library that is dropped takes its kernels along


def run_on_device(
    op: torch._ops.OpOverload, args: Any, kwargs: Any, compute: Callable[..., Any] | None = None
) -> Any:
    """Call with CPU tensors over the device tensors' memory; results are on the device.

    compute: what to call instead of `op` itself, with the same parameters.
    """
    borrowed = Borrowed()

    def lend(value: Any) -> Any:
        if is_on_device(value):
            return borrowed.borrow(value)
        if isinstance(value, torch.device) and value.type == DEVICE_TYPE:
            borrowed.device = borrowed.device or value
            return torch.device("cpu")
        return value

    wanted = kwargs.get("device")
    local_args, local_kwargs = tree_map(lend, (args, kwargs))
    device = torch.device(wanted or borrowed.device or DEVICE_TYPE)
    if "generator" in _parameters(op):
        local_kwargs["generator"] = cpu_generator(kwargs.get("generator"), device)
    results = (compute or op)(*local_args, **local_kwargs)
    borrowed.settle()
    if device.type != DEVICE_TYPE:
        return results
    return tree_map(
        lambda value: borrowed.give_back(value, device) if isinstance(value, Tensor) else value,
        results,
    )


def _parameters(op: torch._ops.OpOverload) -> set[str]:
    return {argument.name for argument in op._schema.arguments}


def native_kernel(
    op: torch._ops.OpOverload, soc: Soc, compute: Callable[..., Any] | None
) -> Callable[..., Any]:
    """The device kernel of a native operator: record, check the policy, compute."""
    name = op._schema.name.split("::")[1]

    def kernel(*args: Any, **kwargs: Any) -> Any:
        record(op, args, kwargs, meta=False)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        check_native_call(name, tensors, soc)
        return run_on_device(op, args, kwargs, compute)

    return kernel


def native_operators() -> list[torch._ops.OpOverload]:
    """The `aten` operators with a kernel for the NPU. Some kernels belong to no operator at all:
    torch_npu registers names of its own under `aten`, which nobody can call."""
    found = []
    for name in torch._C._dispatch_get_all_op_names():
        if name.startswith("aten::") and torch._C._dispatch_has_kernel_for_dispatch_key(name, KEY):
            op = find_overload(name)
            if op is not None:
                found.append(op)
    return found


def find_overload(name: str) -> torch._ops.OpOverload | None:
    """The operator of a qualified name such as `aten::add.Tensor`, or None without a schema."""
    namespace, _, rest = name.partition("::")
    packet_name, _, overload = rest.partition(".")
    try:
        packet = getattr(getattr(torch.ops, namespace), packet_name)
        return getattr(packet, overload or "default")
    except AttributeError:
        return None


def install_native_kernels(soc: Soc) -> int:
    """Replace the NPU kernels of native operators; how many were replaced."""
    library = torch.library.Library("aten", "IMPL")
    _installed.append(library)
    copies, computed = copy_kernels(soc), substitutes(soc)
    count = 0
    for op in native_operators():
        rest = op.name().removeprefix("aten::")
        if rest.partition(".")[0] in _KEPT or op.is_view:
            continue
        if rest in copies:
            kernel = recorded(op, copies[rest])
        else:
            kernel = native_kernel(op, soc, computed.get(rest))
        library.impl(rest, kernel, KEY, allow_override=True)
        count += 1
    return count
