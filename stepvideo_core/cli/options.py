"""Options that several commands share, and how they become a pipeline."""

from __future__ import annotations

from contextlib import nullcontext
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from stepvideo_core.pipeline import StepVideoPipeline

_DISPATCH = "Backends"


class DType(str, Enum):
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class NumericsChoice(str, Enum):
    accurate = "accurate"
    official = "official"


class PresetChoice(str, Enum):
    t2v = "t2v"
    turbo = "turbo"


class HubChoice(str, Enum):
    huggingface = "huggingface"
    modelscope = "modelscope"


class OffloadChoice(str, Enum):
    auto = "auto"
    none = "none"
    stream = "stream"


ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="`tiny`, the folder of an official checkpoint, or an id such as "
        "stepfun-ai/stepvideo-t2v, -turbo or -ti2v.",
    ),
]
PresetOption = Annotated[
    PresetChoice | None,
    typer.Option(
        "--preset",
        help="Sampling defaults: t2v, or turbo (15 steps, guidance 5, shift 17). Default: by the "
        "model's name.",
    ),
]
SharedOption = Annotated[
    Path | None,
    typer.Option(
        "--shared",
        metavar="DIR",
        help="Checkpoint whose VAE and text encoders are used if the model has none. Default: one "
        "beside it.",
    ),
]
HubOption = Annotated[
    HubChoice,
    typer.Option("--hub", help="Where a model that is not here is fetched from."),
]
BackendOption = Annotated[
    str,
    typer.Option(
        "--backend",
        help="auto, reference, cuda, npu, or a plugin's name. A named backend comes first; what it "
        "refuses falls back to the reference, with its reasons shown.",
        rich_help_panel=_DISPATCH,
    ),
]
OpOption = Annotated[
    list[str] | None,
    typer.Option(
        "--op",
        metavar="OP[@SITE]=BACKEND[:IMPL]",
        help="Promise one operator, or one call site, to an implementation. Repeatable.",
        rich_help_panel=_DISPATCH,
    ),
]
FallbackOption = Annotated[
    bool,
    typer.Option(
        "--no-fallback",
        help="Fail instead of falling back to the reference.",
        rich_help_panel=_DISPATCH,
    ),
]
ShadowOption = Annotated[
    str | None,
    typer.Option(
        "--shadow",
        metavar="BACKEND",
        help="Compute every call with this backend as well and report the largest differences.",
        rich_help_panel=_DISPATCH,
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device",
        help="A torch device such as cpu or cuda:1; by default the backend's.",
        rich_help_panel=_DISPATCH,
    ),
]
DTypeOption = Annotated[
    DType | None,
    typer.Option("--dtype", help="Default: bfloat16 on an accelerator, float32 on the CPU."),
]
NumericsOption = Annotated[
    NumericsChoice,
    typer.Option(
        "--numerics",
        help="`official` repeats the official pipeline's half-precision roundings, accidents "
        "included.",
    ),
]
VIDEO_PANEL = "Video"
FramesOption = Annotated[
    int | None,
    typer.Option("--frames", help="1, or a multiple of 17.", rich_help_panel=VIDEO_PANEL),
]
HeightOption = Annotated[
    int | None, typer.Option("--height", help="Multiple of 16.", rich_help_panel=VIDEO_PANEL)
]
WidthOption = Annotated[
    int | None, typer.Option("--width", help="Multiple of 16.", rich_help_panel=VIDEO_PANEL)
]
StepsOption = Annotated[
    int | None, typer.Option("--steps", help="Denoising steps.", rich_help_panel=VIDEO_PANEL)
]
GuidanceOption = Annotated[
    float | None,
    typer.Option(
        "--cfg-scale", help="Guidance; 1 runs a single branch.", rich_help_panel=VIDEO_PANEL
    ),
]
TimeShiftOption = Annotated[
    float | None,
    typer.Option("--time-shift", help="Shift of the schedule.", rich_help_panel=VIDEO_PANEL),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


def open_pipeline(
    model: str,
    *,
    backend: str,
    ops: list[str] | None,
    no_fallback: bool,
    shadow: str | None,
    device: str | None,
    dtype: DType | None,
    numerics: NumericsChoice = NumericsChoice.accurate,
    offload: Any = "auto",
    preset: PresetChoice | None = None,
    shared: Path | None = None,
    hub: HubChoice | None = None,
) -> StepVideoPipeline:
    """The pipeline that the shared options describe; a model is fetched only if `hub` is given."""
    import torch

    from stepvideo_core.cli.console import ProgressObserver
    from stepvideo_core.hub import is_model_id
    from stepvideo_core.pipeline import StepVideoPipeline

    with ProgressObserver() if is_model_id(model) else nullcontext() as observer:
        return StepVideoPipeline.from_pretrained(
            model,
            preset=None if preset is None else preset.value,
            shared=shared,
            hub="huggingface" if hub is None else hub.value,
            download=hub is not None,
            observer=observer,
            backend=backend,
            ops=ops or (),
            allow_fallback=not no_fallback,
            shadow=shadow,
            device=device,
            dtype=None if dtype is None else getattr(torch, dtype.value),
            numerics=numerics.value,
            offload=offload,
        )
