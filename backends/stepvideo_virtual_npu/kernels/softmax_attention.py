"""Softmax attention in float32, and what masks and sparse modes drop from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stepvideo_virtual_npu.contracts.masks import BAND, CAUSAL_BOTTOM_RIGHT, CAUSAL_TOP_LEFT

# Scores of this many elements at a time: a bound on memory, without effect on the result.
_BLOCK = 1 << 24


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """Which scores are left out: by a mask (True drops), a sparse mode and a window.

    mask: broadcasts to [B, N, Sq, Skv], or None, which makes the mode and the window meaningless.
    key_lengths: keys beyond these are dropped, per sample.
    """

    mask: Tensor | None = None
    mode: int = 0
    before: int = 0
    after: int = 0
    key_lengths: Sequence[int] | None = None

    def rows(self, first: int, last: int, queries: int, keys: int) -> Tensor | None:
        """What queries first..last leave out, as a bool that broadcasts to their scores."""
        dropped = None if self.mask is None else self._by_mode(first, last, queries, keys)
        if self.key_lengths is None:
            return dropped
        ends = torch.tensor(list(self.key_lengths))[:, None, None, None]
        beyond = torch.arange(keys) >= ends
        return beyond if dropped is None else dropped | beyond

    def _by_mode(self, first: int, last: int, queries: int, keys: int) -> Tensor:
        assert self.mask is not None
        row = torch.arange(first, last)[:, None]
        key = torch.arange(keys)
        shift = keys - queries  # rows of a bottom-right origin
        if self.mode == CAUSAL_TOP_LEFT:
            return key > row
        if self.mode == CAUSAL_BOTTOM_RIGHT:
            return key > row + shift
        if self.mode == BAND:
            return (key > row + shift + self.after) | (key < row + shift - self.before)
        mask = self.mask.bool()
        if mask.shape[-2] != 1:
            mask = mask[..., first:last, :]
        if self.mode == 0:
            mask = mask | (key > row + self.after) | (key < row - self.before)
        return mask


def softmax_attention(
    q_BNSD: Tensor,
    k_BNSD: Tensor,
    v_BNSD: Tensor,
    scale: float,
    dropped: Dropped,
    *,
    pse: Tensor | None = None,
    add_first: bool = True,
    sink_N: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Result [B, N, Sq, Dv] in the query's dtype; softmax maximum and sum [B, N, Sq, 1], float32.

    Keys and values may have fewer heads. pse is added to the scores before the scaling, or after
    it if not `add_first`. sink is one more score per head that has no value. Rows without any key
    are zero.
    """
    batch, heads, queries, _ = q_BNSD.shape
    keys = k_BNSD.shape[2]
    group = heads // k_BNSD.shape[1]
    k = k_BNSD.float().repeat_interleave(group, dim=1)
    v = v_BNSD.float().repeat_interleave(group, dim=1)
    rows = max(1, _BLOCK // max(1, batch * heads * keys))
    outputs, maxima, sums = [], [], []
    for first in range(0, queries, rows):
        last = min(first + rows, queries)
        scores = q_BNSD[:, :, first:last].float() @ k.transpose(-1, -2)
        bias = None if pse is None else pse[..., first:last, :].float()
        if bias is not None and add_first:
            scores = scores + bias
        scores = scores * scale
        if bias is not None and not add_first:
            scores = scores + bias
        left_out = dropped.rows(first, last, queries, keys)
        if left_out is not None:
            scores = scores.masked_fill(left_out, -torch.inf)
        maximum = scores.amax(dim=-1, keepdim=True)
        if sink_N is not None:
            maximum = torch.maximum(maximum, sink_N[:, None, None])
        weights = torch.exp(scores - maximum.masked_fill(maximum == -torch.inf, 0.0))
        total = weights.sum(dim=-1, keepdim=True)
        if sink_N is not None:
            total = total + torch.exp(sink_N[:, None, None] - maximum)
        result = (weights @ v) / total.masked_fill(total == 0.0, 1.0)
        outputs.append(result.to(q_BNSD.dtype))
        maxima.append(maximum)
        sums.append(total)
    return torch.cat(outputs, dim=2), torch.cat(maxima, dim=2), torch.cat(sums, dim=2)
