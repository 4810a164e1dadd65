"""The config files of a checkpoint: JSON to frozen dataclasses and back.

Readers take the official class defaults for absent fields and refuse values that no model could
have; what they ignore has no influence on the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from stepvideo_core.checkpoints.files import read_json, write_json
from stepvideo_core.config import (
    CLIP_MAX_TOKENS,
    VAE_V1,
    VAE_V2,
    ClipConfig,
    ModelConfig,
    StepLLMConfig,
    TransformerConfig,
    VAECoderConfig,
    VAEConfig,
)
from stepvideo_core.errors import CheckpointError

ComponentConfig = TransformerConfig | VAEConfig | StepLLMConfig | ClipConfig

_C = TypeVar("_C")
_MAY_BE_ZERO = {"num_res_blocks", "pad_token_id", "temporal_levels"}
_DIFFUSERS = "0.31.0"
"""The version that the official files were written with; nothing reads it."""


def read_transformer_config(path: Path) -> TransformerConfig:
    """`transformer/config.json`. Raises CheckpointError for values that no model here has."""
    if read_json(path).get("norm_elementwise_affine"):
        raise CheckpointError(f"{path}: norm_elementwise_affine true is not supported")
    config = _read_config(path, TransformerConfig)
    if len(config.caption_channels) != 2:
        raise CheckpointError(
            f"{path}: caption_channels must be the widths of Step-LLM and Hunyuan-CLIP, not "
            f"{list(config.caption_channels)}"
        )
    if config.in_channels != config.out_channels:
        raise CheckpointError(
            f"{path}: in_channels is {config.in_channels} but out_channels {config.out_channels}; "
            "the model predicts the change of its input, so they must be the same"
        )
    return config


def read_step_llm_config(path: Path) -> StepLLMConfig:
    """`step_llm/config.json`. Raises CheckpointError for sizes that cannot be divided."""
    config = _read_config(path, StepLLMConfig)
    _check_divides(path, config, "hidden_size", "num_attention_heads")
    _check_divides(path, config, "num_attention_heads", "num_attention_groups")
    return config


def read_clip_config(path: Path) -> ClipConfig:
    """`clip_text_encoder/config.json`. Raises CheckpointError for another kind of BERT."""
    positions = read_json(path).get("position_embedding_type", "absolute")
    if positions != "absolute":
        raise CheckpointError(
            f"{path}: position_embedding_type {positions!r} is not supported, only 'absolute'"
        )
    config = _read_config(path, ClipConfig)
    _check_divides(path, config, "hidden_size", "num_attention_heads")
    if config.max_position_embeddings < CLIP_MAX_TOKENS:
        raise CheckpointError(
            f"{path}: max_position_embeddings is {config.max_position_embeddings} but every prompt "
            f"is padded to {CLIP_MAX_TOKENS} tokens"
        )
    return config


def read_vae_config(path: Path) -> VAEConfig:
    """`vae/config.json`: the sizes of a VAE that is not one of the two official ones."""
    values = read_json(path)
    version = values.get("version", 2)
    if version not in (1, 2):
        raise CheckpointError(f"{path}: version {version!r} is neither 1 nor 2")
    base = VAE_V2 if version == 2 else VAE_V1
    plain = {
        key: values[key]
        for key in ("z_channels", "num_res_blocks", "in_channels", "out_channels")
        if key in values
    }
    config = replace(
        base,
        **checked_fields(path, plain, base),
        encoder=_coder(path, values, "encoder", "down_sampling_layer", base.encoder),
        decoder=_coder(path, values, "decoder", "temporal_up_layers", base.decoder),
    )
    if len(config.encoder.multipliers) != len(config.decoder.multipliers):
        raise CheckpointError(
            f"{path}: the encoder has {len(config.encoder.multipliers)} levels but the decoder "
            f"{len(config.decoder.multipliers)}"
        )
    return config


def transformer_config_json(config: TransformerConfig) -> dict[str, Any]:
    """`transformer/config.json` with the official fields."""
    values = asdict(config)
    # Not an official field: the official blocks have it built in.
    if config.block_norm_eps == TransformerConfig().block_norm_eps:
        del values["block_norm_eps"]
    return {
        "_class_name": "StepVideoModel",
        "_diffusers_version": _DIFFUSERS,
        "attention_type": "parallel",
        "dropout": 0.0,
        "norm_elementwise_affine": False,
        "norm_type": "ada_norm_single",
        **values,
    }


def step_llm_config_json(config: StepLLMConfig) -> dict[str, Any]:
    """`step_llm/config.json` with the fields that the official code reads."""
    return {
        "architectures": ["Step1Model"],
        "attention_dropout": 0.0,
        "embedding_weights_in_fp32": False,
        "fp32_residual_connection": False,
        "hidden_dropout": 0.0,
        "params_dtype": "torch.bfloat16",
        "seq_length": 16384,
        "use_flash_attn": True,
        **asdict(config),
    }


def clip_config_json(config: ClipConfig) -> dict[str, Any]:
    """`clip_text_encoder/config.json` as transformers reads it."""
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "attention_probs_dropout_prob": 0.1,
        "hidden_dropout_prob": 0.1,
        "position_embedding_type": "absolute",
        **asdict(config),
    }


def vae_config_json(config: VAEConfig) -> dict[str, Any]:
    """The `vae/config.json` that `read_vae_config` reads back."""
    return {
        "version": config.version,
        "z_channels": config.z_channels,
        "num_res_blocks": config.num_res_blocks,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "encoder": {
            "ch": config.encoder.channels,
            "ch_mult": list(config.encoder.multipliers),
            "down_sampling_layer": list(config.encoder.temporal_levels),
        },
        "decoder": {
            "ch": config.decoder.channels,
            "ch_mult": list(config.decoder.multipliers),
            "temporal_up_layers": list(config.decoder.temporal_levels),
        },
    }


def scheduler_config_json() -> dict[str, Any]:
    """`scheduler/scheduler_config.json`, the same for every model."""
    return {
        "_class_name": "FlowMatchDiscreteScheduler",
        "_diffusers_version": _DIFFUSERS,
        "device": None,
        "num_train_timesteps": 1000,
        "reverse": False,
        "solver": "euler",
    }


def model_index_json(config: TransformerConfig) -> dict[str, Any]:
    """`model_index.json`; the two official repositories name their modules differently."""
    scheduler = transformer = "stepvideo"
    if config.task == "image-to-video":
        scheduler, transformer = "stepvideo.diffusion.scheduler", "stepvideo.modules.model"
    return {
        "_class_name": "StepVideoPipeline",
        "_diffusers_version": _DIFFUSERS,
        "scheduler": [scheduler, "FlowMatchDiscreteScheduler"],
        "transformer": [transformer, "StepVideoModel"],
    }


def write_config_files(root: Path, config: ModelConfig) -> None:
    """Write every config file of the official layout below `root`, making the folders.

    `vae/config.json` is only written for a VAE that is not one of the two official ones.
    """
    write_json(root / "model_index.json", model_index_json(config.transformer))
    write_json(root / "scheduler" / "scheduler_config.json", scheduler_config_json())
    write_json(root / "transformer" / "config.json", transformer_config_json(config.transformer))
    write_json(root / "step_llm" / "config.json", step_llm_config_json(config.step_llm))
    clip_folder = root / "hunyuan_clip" / "clip_text_encoder"
    write_json(clip_folder / "config.json", clip_config_json(config.clip))
    if config.vae not in (VAE_V1, VAE_V2):
        write_json(root / "vae" / "config.json", vae_config_json(config.vae))


def checked_fields(path: Path, given: Any, default: object) -> dict[str, Any]:
    """The given values, each of the type that the default has; lists become tuples of integers.

    Raises CheckpointError for an unknown name, another type, or a number out of range.
    """
    if not isinstance(given, dict):
        raise CheckpointError(f"{path}: expected an object, found {given!r}")
    checked: dict[str, Any] = {}
    for key, value in given.items():
        if not hasattr(default, key):
            raise CheckpointError(f"{path}: unknown setting {key!r}")
        like = getattr(default, key)
        least = 0 if key in _MAY_BE_ZERO else 1
        if isinstance(like, tuple):
            fits = isinstance(value, list) and bool(value)
            fits = fits and all(type(item) is int and item >= least for item in value)
            value = tuple(value) if fits else value
        elif isinstance(like, float):
            fits = type(value) in (int, float) and math.isfinite(value)
        elif type(like) is int:
            fits = type(value) is int and value >= least
        else:
            fits = type(value) is type(like)
        if not fits:
            raise CheckpointError(f"{path}: {key} is {value!r}, but must be {_wanted(like, least)}")
        checked[key] = value
    return checked


def _wanted(like: object, least: int) -> str:
    if isinstance(like, tuple):
        return f"a list of integers from {least} up"
    if isinstance(like, bool):
        return "true or false"
    if isinstance(like, int):
        return f"an integer from {least} up"
    return "a finite number" if isinstance(like, float) else "a text"


def _read_config(path: Path, kind: Callable[[], _C]) -> _C:
    default = kind()
    values = read_json(path)
    names = {field.name for field in fields(default)}  # type: ignore[arg-type]
    given = {key: value for key, value in values.items() if key in names}
    try:
        return replace(default, **checked_fields(path, given, default))  # type: ignore[type-var]
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _check_divides(path: Path, config: object, whole: str, parts: str) -> None:
    if getattr(config, whole) % getattr(config, parts):
        raise CheckpointError(
            f"{path}: {whole} {getattr(config, whole)} is not a multiple of {parts} "
            f"{getattr(config, parts)}"
        )


def _coder(
    path: Path, values: dict[str, Any], name: str, levels_key: str, base: VAECoderConfig
) -> VAECoderConfig:
    given = values.get(name, {})
    if not isinstance(given, dict):
        raise CheckpointError(f"{path}: {name} must be an object")
    renamed = {
        ours: given[theirs]
        for ours, theirs in (
            ("channels", "ch"),
            ("multipliers", "ch_mult"),
            ("temporal_levels", levels_key),
        )
        if theirs in given
    }
    coder = replace(base, **checked_fields(path, renamed, base))
    levels = set(coder.temporal_levels)
    # Two halvings of time, and version 2's patches, are what makes 17 frames 3 or 5 latent ones.
    if len(levels) != 2 or not levels <= set(range(len(coder.multipliers))):
        raise CheckpointError(
            f"{path}: {name}.{levels_key} is {list(coder.temporal_levels)}, but must name two of "
            f"the levels 0 to {len(coder.multipliers) - 1}"
        )
    return coder
