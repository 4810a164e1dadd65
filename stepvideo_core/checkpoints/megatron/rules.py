"""How Megatron-style training names, packs and divides each weight of the transformer.

Official checkpoints hold the fused projections head by head (q, k, v of head 0, then of head 1);
the training code wants all heads of q first, then of k, then of v. Ranks share the heads of a
projection, or the columns of the one that sums over heads; what no rule names, every rank holds
whole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

_BLOCK = re.compile(r"transformer_blocks\.(\d+)\.(.+)")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How one kind of weight is stored.

    name: its name in training, after the block's prefix if it belongs to one. axis: the one that
    tensor-parallel ranks share; None if each holds all of it. num_fused: projections that lie in
    its rows.
    """

    name: str
    axis: int | None = None
    num_fused: int = 1


_ROWS, _COLUMNS = 0, 1
_BLOCK_RULES = {
    "attn1.wqkv.weight": Rule(name="attn1.proj_qkv.weight", axis=_ROWS, num_fused=3),
    "attn1.wo.weight": Rule(name="attn1.proj_out.weight", axis=_COLUMNS),
    "attn2.wq.weight": Rule(name="attn2.proj_q.weight", axis=_ROWS),
    "attn2.wkv.weight": Rule(name="attn2.proj_kv.weight", axis=_ROWS, num_fused=2),
    "attn2.wo.weight": Rule(name="attn2.proj_out.weight", axis=_COLUMNS),
    "ff.net.0.proj.weight": Rule(name="ff.net.0.proj.weight", axis=_ROWS),
    "ff.net.2.weight": Rule(name="ff.net.2.weight", axis=_COLUMNS),
}
_OTHER_RULES = {
    key: Rule(name=key, axis=_ROWS)
    for key in ("adaln_single.linear.weight", "adaln_single.linear.bias")
}
_OFFICIAL_NAMES = {rule.name: name for name, rule in _BLOCK_RULES.items()}


def layer_of(key: str) -> int | None:
    """The block that a key belongs to, in either naming; None for the rest of the model."""
    match = _BLOCK.fullmatch(key)
    return int(match[1]) if match else None


def rule_of(key: str) -> Rule:
    """The rule of an official key."""
    match = _BLOCK.fullmatch(key)
    if match is None:
        return _OTHER_RULES.get(key, Rule(name=key))
    return _BLOCK_RULES.get(match[2], Rule(name=match[2]))


def training_key(key: str, first_layer: int) -> str:
    """The name of an official key in the stage whose first block is `first_layer`."""
    layer = layer_of(key)
    rule = rule_of(key)
    return rule.name if layer is None else f"transformer_blocks.{layer - first_layer}.{rule.name}"


def official_key(key: str, first_layer: int) -> str:
    """The way back from `training_key`."""
    match = _BLOCK.fullmatch(key)
    if match is None:
        return key
    name = _OFFICIAL_NAMES.get(match[2], match[2])
    return f"transformer_blocks.{int(match[1]) + first_layer}.{name}"


def divide(tensor: Tensor, rule: Rule, num_heads: int, num_ranks: int) -> list[Tensor]:
    """The piece of each rank, in training's packing, from a whole tensor in the official one.

    num_heads: of the model; they and the axis must be divisible by `num_ranks`.
    """
    if rule.axis is None:
        return [tensor] * num_ranks
    if rule.num_fused == 1:
        return list(tensor.chunk(num_ranks, rule.axis))
    heads = tensor.unflatten(0, (num_heads, rule.num_fused, -1))  # [heads, projection, rows, ...]
    return [part.transpose(0, 1).flatten(0, 2) for part in heads.chunk(num_ranks)]


def join(parts: list[Tensor], rule: Rule, num_heads: int) -> Tensor:
    """The way back from `divide`; of parts that all ranks hold whole, the first."""
    if rule.axis is None:
        return parts[0]
    if rule.num_fused == 1:
        return torch.cat(parts, rule.axis)
    local_heads = num_heads // len(parts)
    heads = [part.unflatten(0, (rule.num_fused, local_heads, -1)) for part in parts]
    return torch.cat(heads, 1).transpose(0, 1).flatten(0, 2)


def piece_shape(shape: tuple[int, ...], rule: Rule, num_ranks: int) -> tuple[int, ...]:
    """The shape of one rank's piece of a tensor of this shape."""
    return tuple(
        size // num_ranks if axis == rule.axis else size for axis, size in enumerate(shape)
    )


def whole_shape(shape: tuple[int, ...], rule: Rule, num_ranks: int) -> tuple[int, ...]:
    """The way back from `piece_shape`."""
    return tuple(size * num_ranks if axis == rule.axis else size for axis, size in enumerate(shape))
