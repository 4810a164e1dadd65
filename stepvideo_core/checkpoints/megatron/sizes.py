"""The transformer's sizes from the shapes of its weights: training checkpoints have no config."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from stepvideo_core.checkpoints.megatron.rules import layer_of
from stepvideo_core.config import TransformerConfig
from stepvideo_core.errors import CheckpointError

_NEEDED = {
    "pos_embed.proj.weight": 4,
    "proj_out.weight": 2,
    "caption_projection.linear_1.weight": 2,
    "clip_projection.weight": 2,
    "transformer_blocks.0.attn1.q_norm.weight": 1,
}


def config_of(shapes: Mapping[str, tuple[int, ...]], where: Path) -> TransformerConfig:
    """The config whose model has whole tensors of these shapes, by official key.

    What no shape tells (the epsilons) is as in the official models. Raises CheckpointError, naming
    `where`, if the tensors that tell the sizes are missing or contradict one another.
    """
    for key, axes in _NEEDED.items():
        if len(shapes.get(key, ())) != axes:
            found = list(shapes[key]) if key in shapes else "missing"
            raise CheckpointError(
                f"{where} is no checkpoint of a Step-Video transformer: {key} is {found}"
            )
    dim, embed_channels, patch_size, _ = shapes["pos_embed.proj.weight"]
    (head_dim,) = shapes["transformer_blocks.0.attn1.q_norm.weight"]
    out_channels = shapes["proj_out.weight"][0] // patch_size**2 if patch_size else 0
    if not all((dim, head_dim, out_channels)) or dim % head_dim:
        raise CheckpointError(
            f"{where}: weights {dim} wide cannot have heads of {head_dim} channels"
        )
    layers = {layer for key in shapes if (layer := layer_of(key)) is not None}
    try:
        return TransformerConfig(
            num_attention_heads=dim // head_dim,
            attention_head_dim=head_dim,
            in_channels=out_channels,
            out_channels=out_channels,
            num_layers=len(layers),
            patch_size=patch_size,
            caption_channels=(
                shapes["caption_projection.linear_1.weight"][1],
                shapes["clip_projection.weight"][1],
            ),
            # The condition's latents double what the patch embedding reads.
            use_additional_conditions=embed_channels == 2 * out_channels,
        )
    except ValueError as error:
        raise CheckpointError(f"{where}: {error}") from None
