"""The official directory layout: which files belong to which model, and what sizes they have.

model_index.json
scheduler/scheduler_config.json
transformer/config.json, diffusion_pytorch_model*.safetensors
vae/vae_v2.safetensors or vae.safetensors (version 1), config.json only for reduced sizes
step_llm/config.json, model*.safetensors, step1_chat_tokenizer.model
hunyuan_clip/clip_text_encoder/config.json, pytorch_model.bin; hunyuan_clip/tokenizer/
stepvideo.json: ours and optional; sampling defaults that travel with a model
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from stepvideo_core.checkpoints.files import read_json
from stepvideo_core.checkpoints.sources import (
    SafetensorsSource,
    TorchFileSource,
    WeightSource,
    find_safetensors,
)
from stepvideo_core.config import (
    T2V_SAMPLING,
    TI2V_SAMPLING,
    TURBO_SAMPLING,
    VAE_V1,
    VAE_V2,
    ClipConfig,
    ModelConfig,
    SamplingDefaults,
    StepLLMConfig,
    TransformerConfig,
    VAECoderConfig,
    VAEConfig,
)
from stepvideo_core.errors import CheckpointError

ComponentName = Literal["step_llm", "clip", "transformer", "vae"]
COMPONENTS: tuple[ComponentName, ...] = get_args(ComponentName)

_C = TypeVar("_C")


@dataclass(frozen=True)
class CheckpointLayout:
    """A checkpoint directory. Nothing is read until it is asked for."""

    root: Path

    def __post_init__(self) -> None:
        if not self.root.is_dir():
            raise CheckpointError(f"there is no checkpoint folder {self.root}")
        if not (self.root / "transformer").is_dir():
            raise CheckpointError(
                f"{self.root} holds no Step-Video checkpoint: it has no transformer folder"
            )

    @property
    def tokenizer_path(self) -> Path:
        return self.root / "step_llm" / "step1_chat_tokenizer.model"

    @property
    def clip_tokenizer_folder(self) -> Path:
        return self.root / "hunyuan_clip" / "tokenizer"

    @property
    def vae_path(self) -> Path:
        """The version 2 weights if they are there, else version 1."""
        v2, v1 = (self.root / "vae" / name for name in ("vae_v2.safetensors", "vae.safetensors"))
        if v2.is_file():
            return v2
        if v1.is_file():
            return v1
        raise CheckpointError(f"{v2} is missing, and so is {v1.name}")

    def files(self, component: ComponentName) -> list[Path]:
        """The weight files of a component; CheckpointError names what is missing."""
        if component == "transformer":
            return find_safetensors(self.root / "transformer", "diffusion_pytorch_model")
        if component == "step_llm":
            return find_safetensors(self.root / "step_llm", "model")
        if component == "vae":
            return [self.vae_path]
        return [self.root / "hunyuan_clip" / "clip_text_encoder" / "pytorch_model.bin"]

    def open(self, component: ComponentName) -> WeightSource:
        """The tensors of a component, memory-mapped."""
        files = self.files(component)
        return TorchFileSource(files[0]) if component == "clip" else SafetensorsSource(files)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """`stepvideo.json`, empty for an official checkpoint."""
        path = self.root / "stepvideo.json"
        return read_json(path) if path.is_file() else {}

    @property
    def is_trained(self) -> bool:
        return bool(self.settings.get("trained", True))

    @cached_property
    def config(self) -> ModelConfig:
        """Sizes of all models and the sampling defaults, read from the config files."""
        self._check_index_and_scheduler()
        transformer = read_transformer_config(self.root / "transformer" / "config.json")
        vae = self._vae_config()
        if vae.z_channels != transformer.in_channels:
            raise CheckpointError(
                f"{self.root}: the transformer denoises {transformer.in_channels} latent channels "
                f"but {self.vae_path.name} decodes {vae.z_channels}"
            )
        step_llm = _read_config(self.root / "step_llm" / "config.json", StepLLMConfig)
        clip = _read_config(
            self.root / "hunyuan_clip" / "clip_text_encoder" / "config.json", ClipConfig
        )
        widths = (step_llm.hidden_size, clip.hidden_size)
        if widths != transformer.caption_channels:
            raise CheckpointError(
                f"{self.root}: the text encoders give widths {widths} but the transformer reads "
                f"{transformer.caption_channels}"
            )
        return ModelConfig(
            transformer=transformer,
            vae=vae,
            step_llm=step_llm,
            clip=clip,
            sampling=self._sampling_defaults(transformer),
        )

    def _vae_config(self) -> VAEConfig:
        path = self.root / "vae" / "config.json"
        if path.is_file():
            return read_vae_config(path)
        return VAE_V2 if self.vae_path.name == "vae_v2.safetensors" else VAE_V1

    def _sampling_defaults(self, transformer: TransformerConfig) -> SamplingDefaults:
        defaults = T2V_SAMPLING
        if transformer.task == "image-to-video":
            defaults = TI2V_SAMPLING
        elif "turbo" in self.root.resolve().name.lower():
            # The distilled model differs in nothing but its weights, and its name.
            defaults = TURBO_SAMPLING
        given = self.settings.get("sampling", {})
        return replace(defaults, **_checked_fields(self.root / "stepvideo.json", given, defaults))

    def _check_index_and_scheduler(self) -> None:
        index = self.root / "model_index.json"
        if index.is_file():
            name = read_json(index).get("_class_name")
            if name != "StepVideoPipeline":
                raise CheckpointError(f"{index} describes a {name!r}, not a StepVideoPipeline")
        path = self.root / "scheduler" / "scheduler_config.json"
        if path.is_file():
            scheduler = read_json(path)
            solver, reverse = scheduler.get("solver", "euler"), scheduler.get("reverse", False)
            if solver != "euler" or reverse:
                raise CheckpointError(
                    f"{path} asks for solver {solver!r} with reverse {reverse}; Step-Video is "
                    "sampled with solver 'euler' and reverse false"
                )


def read_transformer_config(path: Path) -> TransformerConfig:
    """`transformer/config.json`, with the official class defaults for absent fields."""
    values = read_json(path)
    if values.get("norm_elementwise_affine"):
        raise CheckpointError(f"{path}: norm_elementwise_affine true is not supported")
    return _read_config(path, TransformerConfig)


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
    return replace(
        base,
        **_checked_fields(path, plain, base),
        encoder=_coder(path, values, "encoder", "down_sampling_layer", base.encoder),
        decoder=_coder(path, values, "decoder", "temporal_up_layers", base.decoder),
    )


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
    return replace(base, **_checked_fields(path, renamed, base))


def _read_config(path: Path, kind: Callable[[], _C]) -> _C:
    default = kind()
    values = read_json(path)
    names = {field.name for field in fields(default)}  # type: ignore[arg-type]
    given = {key: value for key, value in values.items() if key in names}
    try:
        return replace(default, **_checked_fields(path, given, default))  # type: ignore[type-var]
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _checked_fields(path: Path, given: Any, default: object) -> dict[str, Any]:
    """The given values, each of the type that the default has; lists become tuples of integers."""
    if not isinstance(given, dict):
        raise CheckpointError(f"{path}: expected an object, found {given!r}")
    checked: dict[str, Any] = {}
    for key, value in given.items():
        if not hasattr(default, key):
            raise CheckpointError(f"{path}: unknown setting {key!r}")
        like = getattr(default, key)
        if isinstance(like, tuple):
            fits = isinstance(value, list) and all(type(item) is int for item in value)
            value = tuple(value) if fits else value
        elif isinstance(like, float):
            fits = type(value) in (int, float)
        else:
            fits = type(value) is type(like)
            if type(like) is int:
                fits = fits and value >= 0
        if not fits:
            raise CheckpointError(
                f"{path}: {key} is {value!r}, which is no {type(like).__name__} like {like!r}"
            )
        checked[key] = value
    return checked
