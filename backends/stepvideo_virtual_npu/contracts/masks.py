"""Limits on masks and length lists that the attention operators share.

In an `atten_mask` True or 1 means MASKED: the opposite of torch's scaled_dot_product_attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from stepvideo_virtual_npu.arguments import has_values
from stepvideo_virtual_npu.contracts.base import Complaints, dtype_name, shape_text

UNLIMITED = 2147483647
COMPRESSED = 2048
"""Side of the triangle that stands for a causal mask of any size in sparse modes 2, 3 and 4."""

CAUSAL_TOP_LEFT, CAUSAL_BOTTOM_RIGHT, BAND = 2, 3, 4


@dataclass(frozen=True, kw_only=True)
class MaskRules:
    """What differs between operators. shapes: allowed for a full mask, outermost first; dtypes: of
    the mask; modes: the sparse modes offered; defined_rows: whether fully masked rows are defined.
    """

    shapes: Sequence[tuple[int, ...]]
    dtypes: tuple[torch.dtype, ...]
    modes: Sequence[int]
    defined_rows: bool


def check_mask(
    mask: Tensor | None, mode: int, before: int, after: int, rules: MaskRules
) -> Complaints:
    """Shape, dtype and, where readable, content of a mask against a sparse mode and a window."""
    if mode not in rules.modes:
        yield f"sparse_mode is {mode}, not one of {', '.join(map(str, rules.modes))}"
        return
    if mask is None:
        if mode != 0:
            yield f"sparse_mode {mode} without atten_mask is ignored: the attention would be full"
        return
    if mask.dtype not in rules.dtypes:
        names = " or ".join(dtype_name(dtype) for dtype in rules.dtypes)
        yield f"atten_mask is {dtype_name(mask.dtype)}, not {names} (True means masked)"
        return
    if mode in (CAUSAL_TOP_LEFT, CAUSAL_BOTTOM_RIGHT, BAND):
        yield from _check_triangle(mask, mode)
        return
    if tuple(mask.shape) not in rules.shapes:
        wanted = ", ".join(sorted({str(list(shape)) for shape in rules.shapes}))
        yield f"atten_mask has shape {shape_text(mask)}, not one of {wanted}"
    elif has_values(mask) and not rules.defined_rows and bool(mask.bool().all(-1).any()):
        yield (
            "atten_mask masks every key of some query, whose result is undefined "
            "(True means masked; inner_precise 2 defines such rows)"
        )
    if mode == 0 and (before < 0 or after < 0):
        yield f"the window ({before}, {after}) is negative in sparse_mode 0"


def _check_triangle(mask: Tensor, mode: int) -> Complaints:
    if tuple(mask.shape[-2:]) != (COMPRESSED, COMPRESSED) or mask.numel() != COMPRESSED**2:
        yield (
            f"sparse_mode {mode} wants the {COMPRESSED} x {COMPRESSED} triangle as atten_mask, "
            f"not {shape_text(mask)}"
        )
    elif has_values(mask):
        triangle = torch.ones(COMPRESSED, COMPRESSED, dtype=torch.bool).triu(1)
        if not torch.equal(mask.reshape(COMPRESSED, COMPRESSED).bool(), triangle):
            yield (
                f"the atten_mask of sparse_mode {mode} must be True strictly above the diagonal "
                "and False elsewhere"
            )


def check_cumulative(name: str, lengths: Sequence[int], total: int, most: int) -> Complaints:
    """Cumulative lengths of a ragged batch: ends of the sequences, without a 0 in front."""
    ends = list(lengths)
    while len(ends) > 1 and ends[-1] == 0:
        ends.pop()  # trailing zeros mark unused entries
    if not ends:
        yield f"{name} is empty; layout TND needs the end of every sequence"
        return
    if ends[0] == 0:
        yield f"{name} starts with 0; it lists the ends of the sequences, without a leading 0"
    if any(later < earlier for earlier, later in pairwise(ends)):
        yield f"{name} {ends} is not cumulative"
    if ends[-1] != total:
        yield f"{name} ends with {ends[-1]}, but there are {total} tokens"
    if len(lengths) > most:
        yield f"{name} has {len(lengths)} entries, more than {most}"
