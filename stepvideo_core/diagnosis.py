"""Examining a machine: versions, devices, memory, codecs, backends, and a live test of every op."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import av
import psutil
import torch
from av.filter import filters_available

from stepvideo_core import __version__
from stepvideo_core.config import TINY
from stepvideo_core.dispatch import (
    COMPOSED,
    Backend,
    BackendRegistry,
    Choice,
    DispatchPlan,
    DispatchPolicy,
    select_device,
)
from stepvideo_core.errors import StepVideoError
from stepvideo_core.memory.units import format_bytes
from stepvideo_core.models.step_llm import StepLLM
from stepvideo_core.models.transformer import StepVideoTransformer
from stepvideo_core.models.vae import VideoVAE
from stepvideo_core.plugins import load_registry
from stepvideo_core.testing.cases import CASES
from stepvideo_core.testing.parity import ParityResult, check, eager_of


class Status(str, Enum):
    """OK works; ABSENT is not here and nothing needs it; BROKEN is here and does not work."""

    OK = "ok"
    ABSENT = "absent"
    BROKEN = "broken"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report; `mend` is the command or step that would change it."""

    area: str
    subject: str
    status: Status
    detail: str
    mend: str = ""

    def as_json(self) -> dict[str, str]:
        return {
            "area": self.area,
            "subject": self.subject,
            "status": self.status.value,
            "detail": self.detail,
            "mend": self.mend,
        }


_PACKAGES: tuple[tuple[str, bool, str], ...] = (
    ("torch", True, "pip install torch"),
    ("transformers", True, "pip install transformers"),
    ("safetensors", True, "pip install safetensors"),
    ("sentencepiece", True, "pip install sentencepiece"),
    ("av", True, "pip install av"),
    ("triton", False, "pip install 'stepvideo[cuda]' on a machine with an NVIDIA card"),
    ("torch_npu", False, "pip install 'stepvideo[npu]' on a machine with an Ascend NPU"),
    ("flash_attn", False, "optional: pip install flash-attn on a machine with an NVIDIA card"),
)
_ENCODERS = {".mp4": "libx264", ".webm": "libvpx-vp9"}
_FILTERS = {"atadenoise": "--no-denoise-filter does without it"}


def examine(*, backend: str = "auto", device: str | None = None) -> list[Finding]:
    """All findings, for the plan that `--backend` and `--device` would give."""
    registry = load_registry()
    # First, though reported later: torch sees some devices only when their backend has loaded.
    backends = list(_backends(registry))
    return [
        *_environment(),
        *_devices(),
        *_codecs(),
        *backends,
        *_operators(registry, backend, device),
    ]


def _environment() -> Iterator[Finding]:
    area = "environment"
    yield Finding(area=area, subject="stepvideo", status=Status.OK, detail=__version__)
    yield Finding(area=area, subject="python", status=Status.OK, detail=platform.python_version())
    for package, needed, mend in _PACKAGES:
        try:
            yield Finding(area=area, subject=package, status=Status.OK, detail=version(package))
        except PackageNotFoundError:
            status = Status.BROKEN if needed else Status.ABSENT
            yield Finding(
                area=area, subject=package, status=status, detail="not installed", mend=mend
            )
    memory = psutil.virtual_memory()
    yield Finding(
        area=area,
        subject="memory",
        status=Status.OK,
        detail=f"{format_bytes(memory.available)} free of {format_bytes(memory.total)}",
    )
    disk = shutil.disk_usage(Path.cwd())
    writable = os.access(Path.cwd(), os.W_OK)
    yield Finding(
        area=area,
        subject="this folder",
        status=Status.OK if writable else Status.BROKEN,
        detail=f"{format_bytes(disk.free)} free" if writable else "not writable",
        mend="" if writable else "work in a folder of yours, or name one with --output",
    )


def _devices() -> Iterator[Finding]:
    area = "devices"
    yield Finding(
        area=area,
        subject="cpu",
        status=Status.OK,
        detail=f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}",
    )
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        yield Finding(
            area=area,
            subject="accelerator",
            status=Status.ABSENT,
            detail="torch sees none",
            mend="if there is one: install its driver and the torch build for it",
        )
        return
    for index in range(torch.accelerator.device_count()):
        device = torch.device(accelerator.type, index)
        free, total = torch.accelerator.get_memory_info(device)
        yield Finding(
            area=area,
            subject=str(device),
            status=Status.OK,
            detail=f"{format_bytes(free)} free of {format_bytes(total)}",
        )


def _codecs() -> Iterator[Finding]:
    area = "video"
    for suffix, encoder in _ENCODERS.items():
        known = encoder in av.codecs_available
        yield Finding(
            area=area,
            subject=suffix,
            status=Status.OK if known else Status.BROKEN,
            detail=encoder if known else f"PyAV was built without {encoder}",
            mend="" if known else "pip install --force-reinstall --only-binary av av",
        )
    for name, without in _FILTERS.items():
        known = name in filters_available
        yield Finding(
            area=area,
            subject=name,
            status=Status.OK if known else Status.ABSENT,
            detail="ffmpeg filter" if known else f"PyAV was built without it; {without}",
        )


def _backends(registry: BackendRegistry) -> Iterator[Finding]:
    area = "backends"
    for backend in registry:
        reasons = registry.why_not(backend.name)
        yield Finding(
            area=area,
            subject=backend.name,
            status=Status.ABSENT if reasons else Status.OK,
            detail="; ".join(reasons) or _description(backend),
        )
    for name, failure in registry.failures.items():
        yield Finding(
            area=area,
            subject=name,
            status=Status.BROKEN,
            detail=f"its plugin failed to load: {failure}",
            mend="repair or uninstall the package that brings it",
        )


def _description(backend: Backend) -> str:
    settings = (f"setting {line}" for line in backend.settings())
    return "\n".join([backend.summary, *backend.describe(), *settings])


def _operators(registry: BackendRegistry, backend: str, device: str | None) -> Iterator[Finding]:
    area = "operators"
    try:
        plan = _default_plan(registry, backend, device)
    except StepVideoError as error:
        yield Finding(area=area, subject="plan", status=Status.BROKEN, detail=str(error))
        return
    seen: set[tuple[str, str]] = set()
    for choice in plan.choices:
        if choice.impl != COMPOSED and (choice.op, choice.impl) not in seen:
            seen.add((choice.op, choice.impl))
            yield _self_test(registry, plan, choice)


def _default_plan(registry: BackendRegistry, backend: str, device: str | None) -> DispatchPlan:
    policy = DispatchPolicy(backend=backend)
    chosen = select_device(registry, policy, device)
    dtype = torch.float32 if chosen.type == "cpu" else torch.bfloat16
    plan = DispatchPlan(registry, policy, device=chosen, dtype=dtype)
    with torch.device("meta"):
        StepVideoTransformer(TINY.transformer, plan)
        VideoVAE(TINY.vae, plan)
        StepLLM(TINY.step_llm, plan)
    return plan


def _self_test(registry: BackendRegistry, plan: DispatchPlan, choice: Choice) -> Finding:
    """Run the operator's parity cases on the implementation that the plan chose, live."""
    results = list(_results(registry, plan, choice))
    failed = [result for result in results if result.status == "failed"]
    ran = [result for result in results if result.status != "skipped"]
    if failed:
        detail = f"{len(failed)} of {len(ran)} cases: {failed[0].case}: {failed[0].reasons[0]}"
        return Finding(
            area="operators",
            subject=f"{choice.op} {choice.impl}",
            status=Status.BROKEN,
            detail=detail,
            mend=f"stepvideo run --op {choice.op}=reference:eager works around it",
        )
    worst = max((result.error or 0.0 for result in ran), default=0.0)
    return Finding(
        area="operators",
        subject=f"{choice.op} {choice.impl}",
        status=Status.OK,
        detail=f"{len(ran)} cases in {str(plan.dtype).removeprefix('torch.')}, "
        f"largest error {worst:.1e}",
    )


def _results(
    registry: BackendRegistry, plan: DispatchPlan, choice: Choice
) -> Iterator[ParityResult]:
    backend, name = choice.impl.split(":")
    eager = eager_of(registry, choice.op)
    for impl in registry.implementations(backend):
        if impl.op.name == choice.op and impl.name == name:
            for case in CASES:
                if case.op is impl.op:
                    yield _guarded_check(impl, choice.impl, case, plan, eager)


def _guarded_check(
    impl: Any, address: str, case: Any, plan: DispatchPlan, eager: Any
) -> ParityResult:
    try:
        return check(impl, address, case, plan.dtype, plan.device, eager)
    # A kernel that cannot run at all is a finding, not the end of the examination.
    except Exception as error:  # noqa: BLE001
        return ParityResult(
            op=case.op.name,
            site=case.site.name,
            impl=address,
            dtype=str(plan.dtype).removeprefix("torch."),
            case=case.name,
            status="failed",
            reasons=(f"{type(error).__name__}: {error}",),
        )
