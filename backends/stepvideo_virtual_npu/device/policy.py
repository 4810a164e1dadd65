"""What a CPU kernel would compute and the hardware would not: native operators only.

The limits of `npu::` operators are contracts. These here are few and certain; the vendor's support
tables list more gaps, but are inconsistent with what runs, so they are not enforced.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from stepvideo_virtual_npu.device.aliasing import DEVICE_TYPE
from stepvideo_virtual_npu.errors import PolicyViolation
from stepvideo_virtual_npu.soc import Soc

_WIDE = {torch.float64, torch.complex128}
# The units for matrix products and vectors have no 64-bit arithmetic; moving 64 bits is fine.
_NO_WIDE_ARITHMETIC = (
    *("mm", "addmm", "bmm", "baddbmm", "matmul", "linear", "addmv", "mv", "dot", "einsum"),
    *("convolution", "convolution_overrideable", "_convolution"),
    *("_softmax", "_log_softmax", "softmax", "log_softmax"),
    *("native_layer_norm", "native_group_norm", "native_batch_norm", "_fused_rms_norm"),
    *("_scaled_dot_product_fused_attention_overrideable", "scaled_dot_product_attention"),
    *("gelu", "silu"),
)
_PADDING = ("replication_pad", "reflection_pad")
# Index tensors may stay on the host, and copies are what devices are bridged with.
_MAY_MIX_DEVICES = ("copy_", "_copy_from", "_copy_from_and_resize", "index", "index_put_")


def check_native_call(name: str, tensors: list[Tensor], soc: Soc) -> None:
    """Raise PolicyViolation if an NPU would refuse the call.

    name: of the operator, without namespace and overload.
    """
    for complaint in _complaints(name, tensors, soc):
        raise PolicyViolation(f"aten::{name}: {complaint}")


def _complaints(name: str, tensors: list[Tensor], soc: Soc) -> Iterator[str]:
    dtypes = {tensor.dtype for tensor in tensors if tensor.device.type == DEVICE_TYPE}
    if torch.bfloat16 in dtypes and not soc.bfloat16:
        yield f"{soc.name} has no bfloat16; use float16"
    if dtypes & _WIDE and name.removesuffix("_") in _NO_WIDE_ARITHMETIC:
        yield "the NPU has no 64-bit arithmetic for it; compute tables in float64 on the CPU"
    if name.startswith(_PADDING) and torch.bfloat16 in dtypes:
        yield "only constant padding takes bfloat16; concatenate repeated slices instead"
    if name not in _MAY_MIX_DEVICES:
        strangers = {
            tensor.device.type
            for tensor in tensors
            if tensor.device.type != DEVICE_TYPE and tensor.dim() > 0
        }
        if dtypes and strangers:
            yield (
                "Expected all tensors to be on the same device, but found at least two devices, "
                f"npu:0 and {', '.join(sorted(strangers))}"
            )
