"""What a model expects of its checkpoint, found by building it without memory."""

from __future__ import annotations

import torch
from torch import nn

from stepvideo_core.checkpoints.configs import ComponentConfig
from stepvideo_core.checkpoints.load import expected_shapes
from stepvideo_core.config import ClipConfig, StepLLMConfig, TransformerConfig
from stepvideo_core.dispatch import DispatchPlan, DispatchPolicy
from stepvideo_core.errors import CheckpointError
from stepvideo_core.models.clip import HunyuanClip
from stepvideo_core.models.step_llm import StepLLM
from stepvideo_core.models.transformer import StepVideoTransformer
from stepvideo_core.models.vae import VideoVAE
from stepvideo_core.plugins import load_registry


def build_on_meta(config: ComponentConfig) -> nn.Module:
    """The module that a config describes, on the meta device, bound for the CPU.

    Raises CheckpointError if a network of these sizes cannot be built.
    """
    plan = DispatchPlan(
        load_registry(), DispatchPolicy(), device=torch.device("cpu"), dtype=torch.float32
    )
    try:
        with torch.device("meta"):
            if isinstance(config, TransformerConfig):
                return StepVideoTransformer(config, plan)
            if isinstance(config, StepLLMConfig):
                return StepLLM(config, plan)
            if isinstance(config, ClipConfig):
                return HunyuanClip(config)
            return VideoVAE(config, plan)
    except (ValueError, KeyError, RuntimeError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"no network can have the sizes that the config gives ({error}); correct {config}"
        ) from error


def model_shapes(config: ComponentConfig) -> dict[str, tuple[int, ...]]:
    """Module key and shape of every tensor of the model that a config describes."""
    return expected_shapes(build_on_meta(config))
