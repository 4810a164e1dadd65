"""What a checkpoint holds, what is missing and what does not belong: all of it at once.

Nothing here stops at the first fault, so that a user mends a download in one go. Weights are not
read, only their names, shapes and dtypes.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from stepvideo_core.checkpoints.configs import ComponentConfig
from stepvideo_core.checkpoints.inventory import model_shapes
from stepvideo_core.checkpoints.layout import (
    COMPONENTS,
    CheckpointLayout,
    ComponentName,
    contradictions,
)
from stepvideo_core.checkpoints.load import KEY_MAPS, Comparison, compare, complaints
from stepvideo_core.checkpoints.shared import find_shared
from stepvideo_core.checkpoints.sources import TensorInfo
from stepvideo_core.config import SamplingDefaults, Task
from stepvideo_core.errors import StepVideoError
from stepvideo_core.models.tokenizers import ClipTokenizer, StepTokenizer

_T = TypeVar("_T")


@dataclass(frozen=True)
class FileReport:
    """A weight file: its path within the checkpoint and its size on disk."""

    path: str
    num_bytes: int


@dataclass(frozen=True)
class ComponentReport:
    """One model of a checkpoint.

    Counts are of what the readable files hold. config: None if its file cannot be read.
    comparison: of those files with the model that the config describes; None without a config, or
    if no file can be read. problems: sentences; empty if the model can be loaded.
    """

    name: ComponentName
    files: tuple[FileReport, ...]
    num_tensors: int
    num_parameters: int
    num_bytes: int
    dtypes: dict[str, int]
    """Tensors per dtype, by torch's names."""
    config: ComponentConfig | None
    comparison: Comparison | None
    problems: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        values = {key: getattr(self, key) for key in self.__dataclass_fields__}
        values["files"] = [asdict(file) for file in self.files]
        values["config"] = asdict(self.config) if self.config is not None else None
        if self.comparison is not None:
            values["comparison"] = _comparison_json(self.comparison)
        values["problems"] = list(self.problems)
        return values


@dataclass(frozen=True)
class TokenizerReport:
    """A tokenizer: where it is, and its size if it loads."""

    name: str
    path: str
    vocab_size: int | None
    problems: tuple[str, ...]


@dataclass(frozen=True)
class CheckpointReport:
    """A whole checkpoint.

    task, sampling: None if what they are read from is broken. other_problems: those that belong to
    no single model or tokenizer.
    """

    root: Path
    task: Task | None
    turbo: bool
    trained: bool
    preset: str | None
    sampling: SamplingDefaults | None
    components: tuple[ComponentReport, ...]
    tokenizers: tuple[TokenizerReport, ...]
    other_problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems

    @property
    def problems(self) -> list[str]:
        """Every problem of the checkpoint, each with the part that it belongs to."""
        return [
            *self.other_problems,
            *(f"{part.name}: {text}" for part in self.components for text in part.problems),
            *(f"{part.name}: {text}" for part in self.tokenizers for text in part.problems),
        ]

    def as_json(self) -> dict[str, Any]:
        return {
            "root": str(self.root),
            "ok": self.ok,
            "task": self.task,
            "turbo": self.turbo,
            "trained": self.trained,
            "preset": self.preset,
            "sampling": asdict(self.sampling) if self.sampling is not None else None,
            "components": [component.as_json() for component in self.components],
            "tokenizers": [asdict(tokenizer) for tokenizer in self.tokenizers],
            "problems": self.problems,
        }


def inspect_checkpoint(root: Path) -> CheckpointReport:
    """Look at every file of a checkpoint without reading the weights.

    Raises CheckpointError only if `root` is no checkpoint folder at all; whatever else is wrong is
    in the report.
    """
    layout = CheckpointLayout(root, shared=find_shared(root))
    problems: list[str] = []
    _try(problems, layout.check_index_and_scheduler)
    settings = _try(problems, lambda: layout.settings)
    # A config that cannot be read is a problem of its component, which reads it again.
    elsewhere: list[str] = []
    transformer = _try(elsewhere, lambda: layout.transformer_config)
    vae = _try(elsewhere, lambda: layout.vae_config)
    step_llm = _try(elsewhere, lambda: layout.step_llm_config)
    clip = _try(elsewhere, lambda: layout.clip_config)
    problems += contradictions(transformer, vae, step_llm, clip)
    task = transformer.task if transformer is not None else None
    sampling = None
    if task is not None and settings is not None:
        sampling = _try(problems, lambda: layout.sampling_defaults(task))
    return CheckpointReport(
        root=root,
        task=task,
        turbo=settings is not None and layout.is_turbo,
        trained=settings is None or layout.is_trained,
        preset=settings.get("preset") if settings is not None else None,
        sampling=sampling,
        components=tuple(_inspect_component(layout, name) for name in COMPONENTS),
        tokenizers=(
            _inspect_tokenizer(
                "Step-LLM tokenizer",
                layout.tokenizer_path,
                root,
                lambda: StepTokenizer(layout.tokenizer_path).vocab_size,
                None if step_llm is None else step_llm.padded_vocab_size,
            ),
            _inspect_tokenizer(
                "Hunyuan-CLIP tokenizer",
                layout.clip_tokenizer_folder,
                root,
                lambda: ClipTokenizer(layout.clip_tokenizer_folder).vocab_size,
                None if clip is None else clip.vocab_size,
            ),
        ),
        other_problems=tuple(problems),
    )


def _inspect_component(layout: CheckpointLayout, name: ComponentName) -> ComponentReport:
    problems: list[str] = []
    config = _try(problems, lambda: layout.component_config(name))
    shapes = _try(problems, partial(model_shapes, config)) if config is not None else None
    files, problem = layout.scan(name)
    if problem is not None:
        problems.append(problem)
    infos = _tensor_infos(layout, name, files, problems)
    comparison = None
    if shapes is not None and infos:
        comparison = compare(shapes, infos, KEY_MAPS[name])
        problems += complaints(comparison, infos)
    stats = [_try(problems, file.stat) for file in files]
    return ComponentReport(
        name=name,
        files=tuple(
            FileReport(_shown(file, layout.root), stat.st_size if stat else 0)
            for file, stat in zip(files, stats, strict=True)
        ),
        num_tensors=len(infos),
        num_parameters=sum(info.shape_numel for info in infos.values()),
        num_bytes=sum(info.num_bytes for info in infos.values()),
        dtypes=dict(Counter(str(i.dtype).removeprefix("torch.") for i in infos.values())),
        config=config,
        comparison=comparison,
        problems=tuple(problems),
    )


def _tensor_infos(
    layout: CheckpointLayout, name: ComponentName, files: list[Path], problems: list[str]
) -> dict[str, TensorInfo]:
    """The tensors of the files that can be opened; each is opened alone, so all are tried."""
    infos: dict[str, TensorInfo] = {}
    for file in files:
        source = _try(problems, partial(layout.open, name, [file]))
        if source is None:
            continue
        doubled = [key for key in source.infos if key in infos]
        if doubled:
            problems.append(
                f"{len(doubled)} tensors are in {file} and in another file, such as {doubled[0]!r} "
                f"in {infos[doubled[0]].file.name}"
            )
        infos = {**source.infos, **infos}
    return infos


def _inspect_tokenizer(
    name: str, path: Path, root: Path, load: Callable[[], int], embedded: int | None
) -> TokenizerReport:
    """embedded: rows of the embedding table that the tokenizer's ids point into, if known."""
    problems: list[str] = []
    vocab_size = _try(problems, load)
    if vocab_size is not None and embedded is not None:
        if vocab_size > embedded:
            problems.append(
                f"{path} has {vocab_size} entries but the model that its config describes embeds "
                f"only {embedded}"
            )
        # Tables are padded a little; half of one unused is a vocabulary that was cut off, which
        # would turn most words into the unknown token without an error.
        elif vocab_size < embedded / 2:
            problems.append(
                f"{path} has only {vocab_size} entries for a model that embeds {embedded}; "
                "download it again"
            )
    return TokenizerReport(name, _shown(path, root), vocab_size, tuple(problems))


def _shown(path: Path, root: Path) -> str:
    """A path as seen from the checkpoint; shared files lie outside of it."""
    return Path(os.path.relpath(path, root)).as_posix()


def _comparison_json(comparison: Comparison) -> dict[str, Any]:
    return {
        "matched": len(comparison.matched),
        "missing": list(comparison.missing),
        "extra": list(comparison.extra),
        "unused": list(comparison.unused),
        "wrong_shape": [
            {"key": key, "found": list(found), "wanted": list(wanted)}
            for key, found, wanted in comparison.wrong_shape
        ],
    }


def _try(problems: list[str], action: Callable[[], _T]) -> _T | None:
    """The result of `action`, or None and one more problem."""
    try:
        return action()
    except StepVideoError as error:
        problems.append(str(error))
    # Files of any content reach parsers that are not ours; a report must come out all the same.
    except Exception as error:  # noqa: BLE001
        problems.append(f"cannot be read: {type(error).__name__}: {error}")
    return None
