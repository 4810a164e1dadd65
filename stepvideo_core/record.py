"""The record of a run: all that is needed to repeat it, or to say how it was made."""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from stepvideo_core import __version__

if TYPE_CHECKING:
    from stepvideo_core.pipeline import StepVideoPipeline
    from stepvideo_core.progress import StageLog
    from stepvideo_core.request import GenerationSettings

RECORD_FORMAT = 1
_PACKAGES = ("torch", "transformers", "safetensors", "triton", "torch_npu", "flash_attn")


def versions() -> dict[str, str]:
    """Versions of what takes part in a run; packages that are absent are left out."""
    found = {"stepvideo": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def run_record(
    pipe: StepVideoPipeline, settings: GenerationSettings, log: StageLog | None = None
) -> dict[str, Any]:
    """A JSON-able record; with `log`, timings and peak memory of each stage are in it."""
    shared = pipe.layout.shared
    record: dict[str, Any] = {
        "format": RECORD_FORMAT,
        "model": str(pipe.layout.root.resolve()),
        "shared": None if shared is None else str(shared.resolve()),
        "trained": pipe.layout.is_trained,
        "settings": settings.as_json(),
        "seed": settings.seed,
        "dtype": str(pipe.dtype).removeprefix("torch."),
        "numerics": pipe.numerics,
        "device": str(pipe.device),
        "backend": pipe.plan.policy.backend,
        "plan": pipe.plan.as_json(),
        "backend_settings": pipe.plan.settings(),
        "finishing": {"crop": True, "denoise_filter": pipe.config.sampling.denoise_filter},
        "versions": versions(),
    }
    return record if log is None else record | measurements(pipe, log)


def measurements(pipe: StepVideoPipeline, log: StageLog) -> dict[str, Any]:
    """What has been measured so far: the stages, and the shadow's differences if there is one."""
    found: dict[str, Any] = {"stages": [report.as_json() for report in log.reports]}
    if pipe.plan.policy.shadow is not None:
        found["shadow"] = [asdict(entry) for entry in pipe.plan.shadow.records]
    return found
