"""Copies, which are what joins the devices: kernels that take tensors of both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from stepvideo_virtual_npu.device.aliasing import cpu_view, is_on_device, to_device
from stepvideo_virtual_npu.device.policy import check_native_call
from stepvideo_virtual_npu.soc import Soc


def _local(tensor: Tensor) -> Tensor:
    return cpu_view(tensor) if is_on_device(tensor) else tensor


def copy_kernels(soc: Soc) -> dict[str, Callable[..., Any]]:
    """Kernels of `aten` operators for the NPU's dispatch key, by name."""

    def copy_(target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
        check_native_call("copy_", [target, source], soc)
        _local(target).copy_(_local(source))
        return target

    def copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
        return copy_(target, source)

    def to_copy(
        tensor: Tensor,
        *,
        dtype: torch.dtype | None = None,
        layout: torch.layout | None = None,
        device: torch.device | None = None,
        pin_memory: bool | None = None,
        non_blocking: bool = False,
        memory_format: torch.memory_format | None = None,
    ) -> Tensor:
        check_native_call("_to_copy", [tensor], soc)
        device = tensor.device if device is None else device
        copied = torch.ops.aten._to_copy.default(
            _local(tensor), dtype=dtype, layout=layout, memory_format=memory_format
        )
        if device.type == "cpu":
            return copied.pin_memory() if pin_memory else copied
        placed = to_device(copied, device)
        check_native_call("_to_copy", [placed], soc)
        return placed

    def local_scalar(tensor: Tensor) -> Any:
        return _local(tensor).item()

    return {
        "copy_": copy_,
        "_copy_from": copy_from,
        "_copy_from_and_resize": copy_from,
        "_to_copy": to_copy,
        "_local_scalar_dense": local_scalar,
    }
