"""Writes a whole model: every file of the official layout from weights that are in memory."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from stepvideo_core.checkpoints.configs import write_config_files
from stepvideo_core.checkpoints.files import atomic_folder, write_json
from stepvideo_core.checkpoints.layout import (
    COMPONENTS,
    SETTINGS_FORMAT,
    TURBO_PRESET,
    VAE_V1_FILE,
    VAE_V2_FILE,
    ComponentName,
    base_sampling,
)
from stepvideo_core.checkpoints.tokenizer_files import write_clip_tokenizer, write_step_tokenizer
from stepvideo_core.checkpoints.writing import write_safetensors, write_torch_file
from stepvideo_core.config import ModelConfig
from stepvideo_core.errors import OutputError

STEP_TOKENIZER_FILE = "step1_chat_tokenizer.model"
CLIP_TOKENIZER_FOLDER = "tokenizer"

Weights = Callable[[ComponentName], Mapping[str, Tensor]]


def write_model_folder(
    target: Path,
    config: ModelConfig,
    weights: Weights,
    *,
    preset: str,
    trained: bool,
    tokenizers: Path | None = None,
    notes: Mapping[str, Any] | None = None,
    on_stage: Callable[[str], None] | None = None,
) -> None:
    """Write a model to the new folder `target`.

    weights: float32 tensors of a component by file key. The transformer, the VAE and Step-LLM are
        stored in bfloat16, Hunyuan-CLIP in float32, as the official ones are.
    preset, trained, notes: for `stepvideo.json`, with the sampling defaults that are not the
        task's own.
    tokenizers: folder whose tokenizer files are copied; None makes those of the small models.
    on_stage: called with the name of each part before it is written.

    Raises OutputError if `target` has files in it or cannot be written; nothing is left then.
    """
    report = on_stage or (lambda stage: None)
    with atomic_folder(target) as root:
        report("config files")
        write_config_files(root, config)
        _write_settings(root, config, preset, trained, notes or {})
        report("tokenizers")
        _write_tokenizers(root, config, tokenizers)
        vae_file = VAE_V2_FILE if config.vae.version == 2 else VAE_V1_FILE
        files: dict[ComponentName, str] = {
            "transformer": "transformer/diffusion_pytorch_model.safetensors",
            "vae": f"vae/{vae_file}",
            "step_llm": "step_llm/model.safetensors",
            "clip": "hunyuan_clip/clip_text_encoder/pytorch_model.bin",
        }
        for name in COMPONENTS:
            report(name)
            path = root / files[name]
            path.parent.mkdir(parents=True, exist_ok=True)
            tensors = weights(name)
            if name == "clip":
                write_torch_file(path, tensors)
            else:
                write_safetensors(path, {k: t.bfloat16() for k, t in tensors.items()})


def _write_tokenizers(root: Path, config: ModelConfig, source: Path | None) -> None:
    step_file = root / "step_llm" / STEP_TOKENIZER_FILE
    clip_folder = root / "hunyuan_clip" / CLIP_TOKENIZER_FOLDER
    if source is None:
        write_step_tokenizer(step_file, config.step_llm.padded_vocab_size)
        write_clip_tokenizer(clip_folder, config.clip.vocab_size)
        return
    try:
        shutil.copyfile(source / STEP_TOKENIZER_FILE, step_file)
        shutil.copytree(source / CLIP_TOKENIZER_FOLDER, clip_folder)
    except OSError as error:
        raise OutputError(f"the tokenizers in {source} cannot be copied: {error}") from error


def _write_settings(
    root: Path, config: ModelConfig, preset: str, trained: bool, notes: Mapping[str, Any]
) -> None:
    usual = asdict(base_sampling(config.transformer.task, turbo=preset == TURBO_PRESET))
    differing = {
        key: value for key, value in asdict(config.sampling).items() if value != usual[key]
    }
    settings = {
        **notes,
        "format": SETTINGS_FORMAT,
        "preset": preset,
        "trained": trained,
        "sampling": differing,
    }
    write_json(root / "stepvideo.json", settings)
