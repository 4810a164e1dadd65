"""RoPE-3D by torch_npu's rotary operator, one axis group at a time.

`qk_norm_rope` has no implementation of its own: the plan composes it of RMSNorm and this.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stepvideo_ascend.toolbox import Toolbox
from stepvideo_core.ops import ROPE_3D, OpImpl, RopeSite, Site

# The documented limits of rotary_mode 'half'.
_MAX_WIDTH = 895
_MAX_HEADS = 999


def rotary_rope_3d(
    x_BSHD: Tensor, cos_SD: Tensor, sin_SD: Tensor, axes: tuple[int, int, int]
) -> Tensor:
    """npu_rotary_mul in mode `half` on the channels of each axis, with its full-width tables.

    Mode `half` pairs channel k with k + w/2, as each group of the model does; `interleave` would
    pair neighbours. The operator casts the tables to x's dtype, so x goes in as float32: cos and
    sin keep their 24 bits, and the result is rounded once. Tables of form [1, S, 1, w] broadcast
    over samples and heads (layout BSND).
    """
    out_BSHD = torch.empty_like(x_BSHD, memory_format=torch.contiguous_format)
    first = 0
    for width in axes:
        group = slice(first, first + width)
        cos_1S1W, sin_1S1W = (
            table[None, :, None, group].contiguous() for table in (cos_SD, sin_SD)
        )
        part_BSHW = x_BSHD[..., group].float().contiguous()
        out_BSHD[..., group] = torch.ops.npu.npu_rotary_mul(
            part_BSHW, cos_1S1W, sin_1S1W, rotary_mode="half"
        )
        first += width
    return out_BSHD


def refusals(site: Site) -> list[str]:
    """Why npu_rotary_mul cannot take a site's heads, on any chip."""
    assert isinstance(site, RopeSite)
    reasons = [f"an axis of {width} channels is odd" for width in site.axes if width % 2]
    reasons += [
        f"an axis of {width} channels > {_MAX_WIDTH}" for width in site.axes if width > _MAX_WIDTH
    ]
    if site.num_heads > _MAX_HEADS:
        reasons.append(f"{site.num_heads} heads > {_MAX_HEADS}")
    return reasons


def implementations(toolbox: Toolbox) -> list[OpImpl[Any]]:
    def why_not(site: Site) -> list[str]:
        return toolbox.why_not(site, "npu_rotary_mul") + refusals(site)

    return [OpImpl(op=ROPE_3D, name="rotary", fn=rotary_rope_3d, why_not=why_not)]
