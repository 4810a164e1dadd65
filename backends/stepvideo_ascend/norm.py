"""RMSNorm and GroupNorm + SiLU by torch_npu's fused operators."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stepvideo_ascend.capability import Capability
from stepvideo_ascend.toolbox import Toolbox
from stepvideo_core.ops import GROUP_NORM_SILU, RMS_NORM, OpImpl, RMSNormSite, Site

# npu_rms_norm on the inference cards: a row of 32 bytes at least.
_LEAST_ROW_310P = 32


def fused_rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """npu_rms_norm, documented for equal dtypes and for half precision with a float32 weight.

    Its second result, the reciprocal root, serves training only.
    """
    return torch.ops.npu.npu_rms_norm(x, weight, epsilon=eps)[0]


def row_refusals(site: Site, capability: Capability) -> list[str]:
    """Why npu_rms_norm cannot take a site's rows on a chip."""
    assert isinstance(site, RMSNormSite)
    row = site.width * site.dtype.itemsize
    if capability.generation == "310P" and row < _LEAST_ROW_310P:
        return [f"rows of {row} bytes < {_LEAST_ROW_310P} on {capability}"]
    return []


def fused_group_norm_silu(
    x_BCTHW: Tensor,
    weight_C: Tensor,
    bias_C: Tensor,
    num_groups: int,
    eps: float,
    per_frame: bool,
    silu: bool,
    front_frames: int,
) -> Tensor:
    """npu_group_norm_silu, frame by frame where the statistics are; torch's GroupNorm without SiLU.

    The operator has no backward. Its statistics cover all axes behind the channels, so frames are
    given one at a time, which also keeps the copies as small as a frame: the widest activation of
    the decoder is 5 GiB.
    """
    batch, channels, frames, height, width = x_BCTHW.shape
    out_BCTHW = x_BCTHW.new_empty((batch, channels, front_frames + frames, height, width))
    out_BCTHW[:, :, :front_frames].zero_()
    step = 1 if per_frame else frames
    for first in range(0, frames, step):
        part = x_BCTHW[:, :, first : first + step].contiguous()
        if silu:
            normed = torch.ops.npu.npu_group_norm_silu(part, weight_C, bias_C, num_groups, eps=eps)[
                0
            ]
        else:
            normed = F.group_norm(part, num_groups, weight_C, bias_C, eps)
        begin = front_frames + first
        out_BCTHW[:, :, begin : begin + step] = normed
    return out_BCTHW


def implementations(toolbox: Toolbox) -> list[OpImpl[Any]]:
    def rms_norm_why_not(site: Site) -> list[str]:
        reasons = toolbox.why_not(site, "npu_rms_norm")
        return reasons or row_refusals(site, toolbox.capability_of(site.device))

    def group_norm_why_not(site: Site) -> list[str]:
        return toolbox.why_not(site, "npu_group_norm_silu")

    return [
        OpImpl(op=RMS_NORM, name="fused", fn=fused_rms_norm, why_not=rms_norm_why_not),
        OpImpl(
            op=GROUP_NORM_SILU,
            name="fused",
            fn=fused_group_norm_silu,
            why_not=group_norm_why_not,
        ),
    ]
