"""Connected regions of masks, for all frames at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Labels = NDArray[np.int64]


def label_components(mask_THW: Mask) -> Labels:
    """Number the 4-connected regions of each frame: int64 [T, H, W], 0 outside of the mask.

    A number stands for one region of one frame; numbers run from 1 without gaps, in the order of
    the regions' first pixels. Union by the smaller root, with pointer jumping, in array operations.
    """
    number_THW = np.cumsum(mask_THW.reshape(-1)).reshape(mask_THW.shape) - 1
    parent_N = np.arange(int(mask_THW.sum()), dtype=np.int64)
    across, below = mask_THW[..., :-1] & mask_THW[..., 1:], mask_THW[:, :-1] & mask_THW[:, 1:]
    left_E = np.concatenate([number_THW[..., :-1][across], number_THW[:, :-1][below]])
    right_E = np.concatenate([number_THW[..., 1:][across], number_THW[:, 1:][below]])
    while True:
        root_left, root_right = parent_N[left_E], parent_N[right_E]
        apart = root_left != root_right
        if not apart.any():
            break
        left_E, right_E = left_E[apart], right_E[apart]
        low = np.minimum(root_left[apart], root_right[apart])
        high = np.maximum(root_left[apart], root_right[apart])
        # Of several lower roots any one will do: the other edges come again in the next round.
        parent_N[high] = low
        while not np.array_equal(jumped := parent_N[parent_N], parent_N):
            parent_N = jumped
    labels_THW = np.zeros(mask_THW.shape, dtype=np.int64)
    labels_THW[mask_THW] = np.unique(parent_N, return_inverse=True)[1] + 1
    return labels_THW


def dilated(mask_THW: Mask, times: int) -> Mask:
    """The mask grown by some pixels in the eight directions."""
    for _ in range(times):
        grown = mask_THW.copy()
        grown[..., 1:] |= mask_THW[..., :-1]
        grown[..., :-1] |= mask_THW[..., 1:]
        mask_THW = grown.copy()
        mask_THW[:, 1:] |= grown[:, :-1]
        mask_THW[:, :-1] |= grown[:, 1:]
    return mask_THW


def eroded(mask_THW: Mask, times: int) -> Mask:
    """The mask shrunk by some pixels; the frame's border takes nothing away."""
    return ~dilated(~mask_THW, times)
