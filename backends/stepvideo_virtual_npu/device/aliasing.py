"""Device memory seen as CPU tensors, and CPU results put into device memory."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from stepvideo_virtual_npu.errors import NotModelled

DEVICE_TYPE = "npu"


def is_on_device(value: Any) -> bool:
    return isinstance(value, Tensor) and value.device.type == DEVICE_TYPE


def cpu_view(tensor: Tensor) -> Tensor:
    """A CPU tensor over the same memory, with the same shape, strides and offset.

    Does not keep the memory alive: for the duration of a kernel only.
    """
    storage = tensor.untyped_storage()
    if storage.nbytes() == 0:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
    memory = (ctypes.c_ubyte * storage.nbytes()).from_address(storage.data_ptr())
    base = torch.frombuffer(memory, dtype=torch.uint8).untyped_storage()
    view = torch.empty(0, dtype=tensor.dtype)
    view.set_(base, tensor.storage_offset(), tensor.size(), tensor.stride())
    if tensor.is_conj():
        view = view.conj()
    return view._neg_view() if tensor.is_neg() else view


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A device tensor with the values and strides of a CPU tensor."""
    if tensor.layout != torch.strided:
        raise NotModelled(f"a result of layout {tensor.layout} has no place on the virtual NPU")
    placed = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
    if tensor.numel():
        cpu_view(placed).copy_(tensor)
    return placed


class Borrowed:
    """The device tensors that a call borrowed, to know them, or views of them, in its results."""

    def __init__(self) -> None:
        self._pairs: list[tuple[Tensor, Tensor]] = []
        self.device: torch.device | None = None

    def borrow(self, tensor: Tensor) -> Tensor:
        view = cpu_view(tensor)
        self._pairs.append((view, tensor))
        self.device = self.device or tensor.device
        return view

    def settle(self) -> None:
        """Resize the owners of views that the kernel resized: results in `out=` of another size."""
        for view, owner in self._pairs:
            if view.shape != owner.shape:
                owner.resize_(view.shape)
                cpu_view(owner).copy_(view)

    def give_back(self, result: Tensor, device: torch.device) -> Tensor:
        """The device tensor for a CPU result: the borrowed one, a view of it, or a new one."""
        for view, owner in self._pairs:
            if result is view:
                return owner
        if result.numel():
            start = result.untyped_storage().data_ptr()
            for view, owner in self._pairs:
                if view.numel() and view.untyped_storage().data_ptr() == start:
                    if result.dtype != owner.dtype:
                        raise NotModelled("a kernel returned memory of its input as another dtype")
                    return owner.as_strided(result.shape, result.stride(), result.storage_offset())
        return to_device(result, device)
