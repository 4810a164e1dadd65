"""The official directory layout: which files belong to which model, and what sizes they have.

model_index.json
scheduler/scheduler_config.json
transformer/config.json, diffusion_pytorch_model*.safetensors
vae/vae_v2.safetensors or vae.safetensors (version 1), config.json only for reduced sizes
step_llm/config.json, model*.safetensors, step1_chat_tokenizer.model
hunyuan_clip/clip_text_encoder/config.json, pytorch_model.bin; hunyuan_clip/tokenizer/
stepvideo.json: ours and optional; sampling defaults that travel with a model

Turbo comes without vae, step_llm and hunyuan_clip, which then lie in another checkpoint's folder.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from stepvideo_core.checkpoints.configs import (
    ComponentConfig,
    checked_fields,
    read_clip_config,
    read_step_llm_config,
    read_transformer_config,
    read_vae_config,
)
from stepvideo_core.checkpoints.files import read_json
from stepvideo_core.checkpoints.sources import (
    SafetensorsSource,
    TorchFileSource,
    WeightSource,
    scan_safetensors,
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
    Task,
    TransformerConfig,
    VAEConfig,
)
from stepvideo_core.errors import CheckpointError, InvalidRequest

ComponentName = Literal["step_llm", "clip", "transformer", "vae"]
COMPONENTS: tuple[ComponentName, ...] = get_args(ComponentName)

Preset = Literal["t2v", "turbo"]
"""Sampling defaults of the text-to-video model or of its distillation, which share all configs."""

SHARED_FOLDERS = ("vae", "step_llm", "hunyuan_clip")
"""What every model of the family has in common."""

VAE_V2_FILE, VAE_V1_FILE = "vae_v2.safetensors", "vae.safetensors"
TURBO_PRESET = "t2v-turbo"
SETTINGS_FORMAT = 1
"""The `format` of `stepvideo.json`."""


@dataclass(frozen=True)
class CheckpointLayout:
    """A checkpoint directory. Nothing is read until it is asked for.

    shared: another checkpoint, whose VAE and text encoders are used where `root` has none.
    preset: whose sampling defaults hold, whatever the names say; only for text-to-video.
    """

    root: Path
    shared: Path | None = None
    preset: Preset | None = None

    def __post_init__(self) -> None:
        if not self.root.is_dir():
            raise CheckpointError(f"there is no checkpoint folder {self.root}")
        # The VAE is of use by itself, and a hundredth of the download.
        if not any((self.root / name).is_dir() for name in ("transformer", "vae")):
            raise CheckpointError(
                f"{self.root} holds no Step-Video checkpoint: it has no transformer folder, nor "
                "one named vae"
            )

    def folder(self, name: str) -> Path:
        """A component's folder: in the checkpoint itself if it is there, else in the shared one."""
        own = self.root / name
        if self.shared is None or name not in SHARED_FOLDERS or own.is_dir():
            return own
        return self.shared / name

    @property
    def name(self) -> str:
        """What the checkpoint is called; a snapshot in a hub's cache is named after its model."""
        root = self.root.resolve()
        return root.parents[1].name if root.parent.name == "snapshots" else root.name

    @property
    def tokenizer_path(self) -> Path:
        return self.folder("step_llm") / "step1_chat_tokenizer.model"

    @property
    def clip_tokenizer_folder(self) -> Path:
        return self.folder("hunyuan_clip") / "tokenizer"

    @property
    def vae_path(self) -> Path:
        """The version 2 weights if they are there, else version 1; CheckpointError if neither."""
        return self.files("vae")[0]

    def files(self, component: ComponentName) -> list[Path]:
        """The weight files of a component; CheckpointError names what is missing."""
        files, problem = self.scan(component)
        if problem is not None:
            raise CheckpointError(problem)
        return files

    def scan(self, component: ComponentName) -> tuple[list[Path], str | None]:
        """The weight files of a component that are there, and what is missing, if anything."""
        if component == "transformer":
            return scan_safetensors(self.root / "transformer", "diffusion_pytorch_model")
        if component == "step_llm":
            return scan_safetensors(self.folder("step_llm"), "model")
        if component == "vae":
            v2, v1 = (self.folder("vae") / name for name in (VAE_V2_FILE, VAE_V1_FILE))
            found = [path for path in (v2, v1) if path.is_file()]
            return found[:1], None if found else f"{v2} is missing, and so is {v1.name}"
        path = self.folder("hunyuan_clip") / "clip_text_encoder" / "pytorch_model.bin"
        return ([path], None) if path.is_file() else ([], f"{path} is missing")

    def open(self, component: ComponentName, files: list[Path] | None = None) -> WeightSource:
        """The tensors of a component, memory-mapped; `files` restricts them to some of its files.

        Raises CheckpointError for a missing or broken file.
        """
        if files is None:
            files = self.files(component)
        return TorchFileSource(files[0]) if component == "clip" else SafetensorsSource(files)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """`stepvideo.json`, empty for an official checkpoint.

        format, preset and trained say what wrote the checkpoint, sampling overrides defaults;
        anything else is a note.
        """
        path = self.settings_path
        if not path.is_file():
            return {}
        settings = read_json(path)
        if settings.get("format", SETTINGS_FORMAT) != SETTINGS_FORMAT:
            raise CheckpointError(
                f"{path} has format {settings['format']!r}, but this version of stepvideo reads "
                f"format {SETTINGS_FORMAT}; install a newer one"
            )
        for key, like, wanted in (("trained", True, "true or false"), ("preset", "", "a text")):
            if type(settings.get(key, like)) is not type(like):
                raise CheckpointError(f"{path}: {key} is {settings[key]!r}, but must be {wanted}")
        return settings

    @property
    def settings_path(self) -> Path:
        return self.root / "stepvideo.json"

    @property
    def is_trained(self) -> bool:
        return bool(self.settings.get("trained", True))

    @property
    def is_turbo(self) -> bool:
        """Whether this is the distilled model, which differs in nothing but weights and name.

        `preset` decides if it is given, then the preset that `stepvideo.json` names, else the
        folder's name.
        """
        if self.preset is not None:
            return self.preset == "turbo"
        preset = self.settings.get("preset")
        if preset is not None:
            return bool(preset == TURBO_PRESET)
        return "turbo" in self.name.lower()

    @cached_property
    def config(self) -> ModelConfig:
        """Sizes of all models and the sampling defaults, read from the config files.

        Raises CheckpointError for a broken file, and for files that do not fit one another.
        """
        self.check_index_and_scheduler()
        config = ModelConfig(
            transformer=self.transformer_config,
            vae=self.vae_config,
            step_llm=self.step_llm_config,
            clip=self.clip_config,
            sampling=self.sampling_defaults(self.transformer_config.task),
        )
        found = contradictions(config.transformer, config.vae, config.step_llm, config.clip)
        if found:
            raise CheckpointError(f"{self.root}: {'; '.join(found)}")
        return config

    @cached_property
    def transformer_config(self) -> TransformerConfig:
        return read_transformer_config(self.root / "transformer" / "config.json")

    @cached_property
    def vae_config(self) -> VAEConfig:
        """From `vae/config.json` if there is one, else by the name of the weights."""
        path = self.folder("vae") / "config.json"
        if path.is_file():
            return read_vae_config(path)
        return VAE_V2 if self.vae_path.name == VAE_V2_FILE else VAE_V1

    @cached_property
    def step_llm_config(self) -> StepLLMConfig:
        return read_step_llm_config(self.folder("step_llm") / "config.json")

    @cached_property
    def clip_config(self) -> ClipConfig:
        return read_clip_config(self.folder("hunyuan_clip") / "clip_text_encoder" / "config.json")

    def component_config(self, component: ComponentName) -> ComponentConfig:
        """The sizes of one model; CheckpointError if its config file is missing or broken."""
        if component == "transformer":
            return self.transformer_config
        if component == "vae":
            return self.vae_config
        return self.step_llm_config if component == "step_llm" else self.clip_config

    def sampling_defaults(self, task: Task) -> SamplingDefaults:
        """The task's defaults with what `stepvideo.json` overrides."""
        if self.preset is not None and task == "image-to-video":
            raise InvalidRequest(
                f"--preset {self.preset}: {self.root} is an image-to-video model, which has only "
                "its own settings; leave --preset out"
            )
        defaults = base_sampling(task, turbo=self.is_turbo)
        given = self.settings.get("sampling", {})
        return replace(defaults, **checked_fields(self.settings_path, given, defaults))

    def check_index_and_scheduler(self) -> None:
        """CheckpointError if the checkpoint says that it is another pipeline or sampler."""
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


def base_sampling(task: Task, *, turbo: bool) -> SamplingDefaults:
    """The defaults of a task before a checkpoint overrides any."""
    if task == "image-to-video":
        return TI2V_SAMPLING
    return TURBO_SAMPLING if turbo else T2V_SAMPLING


def contradictions(
    transformer: TransformerConfig | None,
    vae: VAEConfig | None,
    step_llm: StepLLMConfig | None,
    clip: ClipConfig | None,
) -> list[str]:
    """Where models of these sizes do not fit together, as sentences; None is not compared."""
    found = []
    if transformer and vae and transformer.in_channels != vae.z_channels:
        found.append(
            f"the transformer denoises {transformer.in_channels} latent channels (in_channels) but "
            f"the VAE has {vae.z_channels} (z_channels)"
        )
    for index, (name, encoder) in enumerate((("Step-LLM", step_llm), ("Hunyuan-CLIP", clip))):
        if transformer and encoder and encoder.hidden_size != transformer.caption_channels[index]:
            found.append(
                f"{name} gives text states of width {encoder.hidden_size} (hidden_size) but the "
                f"transformer reads {transformer.caption_channels[index]} "
                f"(caption_channels[{index}])"
            )
    return found
