"""GELU in its tanh form, where no matrix product's epilogue has it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from stepvideo_kernels.launch import launch, power_of_2, wide_type


@triton.jit
def block_offsets(BLOCK: tl.constexpr):
    """Element indices of this program; 64 bits wide, since a feed-forward hidden layer passes 2^31
    elements at 83k tokens."""
    return tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)


@triton.jit
def _gelu_tanh_kernel(
    x_ptr, out_ptr, num_elements, stride, BLOCK: tl.constexpr, WIDE: tl.constexpr
):
    index = block_offsets(BLOCK)
    x = tl.load(x_ptr + index * stride, mask=index < num_elements, other=0.0).to(WIDE)
    # (1 + tanh(u)) / 2 is sigmoid(2 u); 1.5957691216057308 is 2 sqrt(2 / pi).
    out = x * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))
    tl.store(out_ptr + index, out.to(out_ptr.dtype.element_ty), mask=index < num_elements)


@dataclass(frozen=True, kw_only=True)
class FlatConfig:
    """Elements and warps per program."""

    block: int
    num_warps: int


# 32 bf16 elements per thread: four 16-byte loads in flight. Arithmetic, not a measurement.
DEFAULT = FlatConfig(block=4096, num_warps=4)
_CANDIDATES = tuple(
    FlatConfig(block=block, num_warps=warps)
    for block in (1024, 2048, 4096, 8192)
    for warps in (2, 4, 8)
)


def triton_gelu_tanh(x: Tensor) -> Tensor:
    """0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), elementwise.

    x: any shape and strides. Returns a contiguous tensor of x's shape and dtype; float32 inside
    (float64 for float64), rounded once.
    """
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    flat = x.reshape(-1)  # a view where one stride describes x, else a copy
    num_elements = flat.shape[0]

    def run(config: FlatConfig) -> None:
        _gelu_tanh_kernel[(triton.cdiv(num_elements, config.block),)](
            flat,
            out,
            num_elements,
            flat.stride(0),
            BLOCK=config.block,
            WIDE=wide_type(x.dtype),
            num_warps=config.num_warps,
        )

    launch("gelu_tanh", (x.dtype, power_of_2(num_elements)), x, run, DEFAULT, _CANDIDATES)
    return out


def gelu_tanh_twin(x: Tensor) -> Tensor:
    """The same in plain torch."""
    return F.gelu(x, approximate="tanh")
