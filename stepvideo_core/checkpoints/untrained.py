"""Writes a checkpoint with random weights: every file of the official layout at a small size.

It makes noise, not videos, but everything that runs a real checkpoint runs on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from stepvideo_core.checkpoints.configs import ComponentConfig
from stepvideo_core.checkpoints.inventory import model_shapes
from stepvideo_core.checkpoints.layout import COMPONENTS, ComponentName, contradictions
from stepvideo_core.checkpoints.load import file_key
from stepvideo_core.checkpoints.model_folder import write_model_folder
from stepvideo_core.config import TINY, ModelConfig
from stepvideo_core.errors import InvalidRequest

_MAX_BYTES = 2 * 10**9
_TABLE_STD = 0.2

Shapes = dict[str, tuple[int, ...]]


def write_untrained(
    target: Path,
    config: ModelConfig = TINY,
    *,
    seed: int = 0,
    preset: str = "tiny",
    on_stage: Callable[[str], None] | None = None,
) -> None:
    """Write a randomly initialised checkpoint of the given sizes to the new folder `target`.

    Weights follow from `seed` alone: the same seed gives the same files. The transformer, the VAE
    and Step-LLM are stored in bfloat16, Hunyuan-CLIP in float32, as the official ones are.
    preset: noted in `stepvideo.json`, with the sampling defaults that are not the task's own.
    on_stage: called with the name of each part before it is written.

    Raises InvalidRequest for sizes beyond 2 GB or models that do not fit together, OutputError if
    `target` has files in it or cannot be written; nothing is left behind then.
    """
    parts: dict[ComponentName, ComponentConfig] = {
        "transformer": config.transformer,
        "vae": config.vae,
        "step_llm": config.step_llm,
        "clip": config.clip,
    }
    found = contradictions(config.transformer, config.vae, config.step_llm, config.clip)
    if found:
        raise InvalidRequest(f"sizes of preset {preset!r}: {'; '.join(found)}")
    shapes = {name: model_shapes(part) for name, part in parts.items()}
    _check_size(shapes, preset)
    write_model_folder(
        target,
        config,
        lambda name: _initial_weights(name, shapes[name], seed),
        preset=preset,
        trained=False,
        on_stage=on_stage,
    )


def _check_size(shapes: dict[ComponentName, Shapes], preset: str) -> None:
    num_bytes = sum(
        math.prod(shape) * (4 if name == "clip" else 2)
        for name, inventory in shapes.items()
        for shape in inventory.values()
    )
    if num_bytes > _MAX_BYTES:
        raise InvalidRequest(
            f"an untrained checkpoint of preset {preset!r} would take {num_bytes / 1e9:.1f} GB; "
            f"they are for trying things out, so sizes beyond {_MAX_BYTES / 1e9:.0f} GB are "
            "refused: take smaller sizes, such as preset 'tiny'"
        )


def _initial_weights(name: ComponentName, shapes: Shapes, seed: int) -> dict[str, Tensor]:
    """float32 tensors by file key. Each component has its own stream of random numbers."""
    generator = torch.Generator().manual_seed(
        (seed * len(COMPONENTS) + COMPONENTS.index(name)) % 2**63
    )
    return {
        file_key(name, key): _initial_tensor(key, shape, generator) for key, shape in shapes.items()
    }


def _initial_tensor(key: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Unit gain where a sum is taken, so that activations stay near 1 through all layers."""
    if key.endswith(".bias"):
        return torch.zeros(shape)
    if len(shape) == 1:  # the weight of a norm
        return torch.ones(shape)
    normal = torch.randn(shape, generator=generator)
    if key.endswith("scale_shift_table"):
        return normal * _TABLE_STD
    if "embeddings." in key:
        return normal
    fan_in = math.prod(shape[1:])
    return normal * fan_in**-0.5
