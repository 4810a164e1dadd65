"""Convolutions under names of their own."""

from __future__ import annotations

import torch
from torch import Tensor

from stepvideo_virtual_npu.arguments import Arguments


def npu_convolution(call: Arguments) -> Tensor:
    """In two or three dimensions, by the input's."""
    bias = None if call.bias is None else call.bias.float()
    convolve = torch.conv3d if call.input.dim() == 5 else torch.conv2d
    result = convolve(
        call.input.float(),
        call.weight.float(),
        bias,
        call.stride,
        call.padding,
        call.dilation,
        call.groups,
    )
    return result.to(call.input.dtype)
