"""Device and pinned memory of the virtual NPU: blocks of host memory under the driver's limit."""

from __future__ import annotations

import ctypes
import mmap

# Addresses are aligned to 512 bytes by the real driver; pages are aligned to more.
_FRESH = 0xFF


class HostBlocks:
    """Hands out blocks by address and takes them back.

    capacity: bytes; an allocation beyond it fails, as on the device. Fresh memory is full of 0xFF,
    which is NaN in every floating-point dtype: nothing promises zeros there.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._blocks: dict[int, tuple[mmap.mmap, int]] = {}
        self._used = 0

    @property
    def free_bytes(self) -> int:
        return self.capacity - self._used

    def allocate(self, size: int) -> int | None:
        """The address of a new block, or None if it does not fit."""
        size = max(size, 1)
        if size > self.free_bytes:
            return None
        block = mmap.mmap(-1, size)
        address = ctypes.addressof(ctypes.c_char.from_buffer(block))
        ctypes.memset(address, _FRESH, size)
        self._blocks[address] = (block, size)
        self._used += size
        return address

    def release(self, address: int) -> bool:
        """Whether `address` was a block of ours; it is gone now."""
        block = self._blocks.pop(address, None)
        if block is None:
            return False
        self._used -= block[1]
        return True
