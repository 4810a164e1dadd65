"""The attention operators' layout strings: which axis is batch, sequence, head, or all merged.

B batch, S sequence, N heads, D head width, H heads merged with their width, T batch and sequence
merged (ragged batches).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Size, Tensor


@dataclass(frozen=True, kw_only=True)
class Extent:
    """The sizes of a query, key or value, whatever its layout. For TND, batch is 1."""

    batch: int
    length: int
    heads: int
    width: int


RANKS = {"BSH": 3, "SBH": 3, "BSND": 4, "BNSD": 4, "TND": 3, "NTD": 3}


def extent(shape: Size, layout: str, heads: int) -> Extent:
    """heads: counts only where the layout merges heads and width; it must divide them."""
    if layout in ("BSH", "SBH"):
        batch, length = (shape[0], shape[1]) if layout == "BSH" else (shape[1], shape[0])
        return Extent(batch=batch, length=length, heads=heads, width=shape[2] // heads)
    if layout == "BSND":
        return Extent(batch=shape[0], length=shape[1], heads=shape[2], width=shape[3])
    if layout == "BNSD":
        return Extent(batch=shape[0], length=shape[2], heads=shape[1], width=shape[3])
    if layout == "TND":
        return Extent(batch=1, length=shape[0], heads=shape[1], width=shape[2])
    if layout == "NTD":
        return Extent(batch=1, length=shape[1], heads=shape[0], width=shape[2])
    raise ValueError(f"unknown layout {layout!r}")


def to_BNSD(x: Tensor, layout: str, heads: int) -> Tensor:  # noqa: N802
    """A view as batch, heads, sequence, width. heads: as in `extent`."""
    if layout == "BSH":
        return x.unflatten(2, (heads, -1)).transpose(1, 2)
    if layout == "SBH":
        return x.unflatten(2, (heads, -1)).permute(1, 2, 0, 3)
    if layout == "BSND":
        return x.transpose(1, 2)
    if layout == "TND":
        return x.transpose(0, 1)[None]
    if layout == "NTD":
        return x[None]
    return x


def from_BNSD(x_BNSD: Tensor, layout: str) -> Tensor:  # noqa: N802
    """A contiguous tensor in the layout."""
    if layout == "BSH":
        return x_BNSD.transpose(1, 2).flatten(2)
    if layout == "SBH":
        return x_BNSD.permute(2, 0, 1, 3).flatten(2)
    if layout == "BSND":
        return x_BNSD.transpose(1, 2).contiguous()
    if layout == "TND":
        return x_BNSD[0].transpose(0, 1).contiguous()
    if layout == "NTD":
        return x_BNSD[0].contiguous()
    if layout == "NBSD":
        return x_BNSD.transpose(0, 1).contiguous()
    return x_BNSD.contiguous()
