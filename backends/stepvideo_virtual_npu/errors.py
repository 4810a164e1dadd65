"""What can be wrong: the virtual NPU cannot start, or a real NPU would not take a call."""

from __future__ import annotations

from stepvideo_core.errors import BackendUnavailable


class VirtualNpuUnavailable(BackendUnavailable):
    """The virtual NPU cannot be started in this process; the message says what to do."""


class VirtualNpuError(RuntimeError):
    """Base of what the virtual device raises; torch_npu raises RuntimeError in its place."""


class ContractViolation(VirtualNpuError):
    """A call of an `npu::` operator outside its documented limits."""


class PolicyViolation(VirtualNpuError):
    """A call of a native operator that the hardware, or torch_npu on it, would refuse."""


class NotModelled(VirtualNpuError):
    """A call that may well be right, but that the virtual NPU cannot answer."""
