"""Activation checkpointing: a block keeps its input only, and runs again in the backward pass."""

from __future__ import annotations

import functools

from torch.utils.checkpoint import checkpoint

from stepvideo_core.models.transformer import StepVideoTransformer


def recompute_blocks(transformer: StepVideoTransformer) -> None:
    """Let every block of the transformer forget its activations; the result is the same."""
    for block in transformer.blocks:
        forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
        block.forward = forward  # type: ignore[method-assign]
