"""`stepvideo plan --explain`: time and memory of a run before it runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from stepvideo_core.cli.console import note, print_json, print_table, stderr, stdout
from stepvideo_core.errors import InvalidRequest

if TYPE_CHECKING:
    import torch

    from stepvideo_bench.checking import Check
    from stepvideo_bench.devices import Device
    from stepvideo_bench.explain import Explanation, Rates
    from stepvideo_core.config import ModelConfig
    from stepvideo_core.request import Choices

_SHOWN_OPS = 12


@dataclass(frozen=True, kw_only=True)
class ExplainRequest:
    """What `plan --explain` was asked."""

    model: str
    assume: str | None
    choices: Choices
    measured: list[Path]
    backend: str
    ops: list[str]
    allow_fallback: bool
    device: str | None
    dtype: str | None


def explain_plan(request: ExplainRequest, *, json_output: bool) -> None:
    """Predict, check against what was measured, and print."""
    import torch

    from stepvideo_bench.advice import advise
    from stepvideo_bench.checking import check_published, check_records
    from stepvideo_bench.devices import find_device
    from stepvideo_bench.explain import explain, measured_shares
    from stepvideo_bench.rows import read_any
    from stepvideo_core.request import build_settings

    config = _config(request.model)
    settings, notes = build_settings(config, "anything", request.choices)
    records = [(path.name, read_any(path)) for path in request.measured]
    shares = measured_shares(record for _, record in records if record.get("kind") == "ops")
    assumed = None if request.assume is None else find_device(request.assume)
    if assumed is None:
        where, dtype, rates, memory, impls = _this_machine(request, config)
    else:
        dtype = getattr(torch, request.dtype or "bfloat16")
        where, rates, memory, impls = assumed.name, _rates_of(assumed, dtype), assumed.memory, {}
    explanation = explain(
        config,
        settings,
        dtype=dtype,
        device=where,
        rates=rates,
        memory=memory,
        shares=shares,
        impls=impls,
    )
    explanation = replace(explanation, advice=advise(explanation, config, settings, dtype))
    checks = check_records(records, shares)
    if assumed is not None:
        checks += check_published(explanation, assumed, settings)
    if json_output:
        print_json(
            {
                "model": request.model,
                "settings": {
                    "frames": settings.num_frames,
                    "height": settings.height,
                    "width": settings.width,
                    "steps": settings.num_steps,
                    "cfg_scale": settings.cfg_scale,
                },
                "dtype": str(dtype).removeprefix("torch."),
                "explanation": explanation.as_json(),
                "checks": [check.as_json() for check in checks],
                "notes": notes,
            }
        )
        return
    for text in notes:
        note(text)
    size = f"{settings.num_frames} frames of {settings.width}x{settings.height}"
    stderr().print(
        f"{size}, {settings.num_steps} steps, {str(dtype).removeprefix('torch.')} on {where}",
        soft_wrap=True,
    )
    _show(explanation, checks)


def _config(model: str) -> ModelConfig:
    """The sizes of a checkpoint folder, of `tiny`, or of an official model that is not here."""
    from stepvideo_core.checkpoints.bundled import TINY, resolve_model
    from stepvideo_core.checkpoints.layout import CheckpointLayout
    from stepvideo_core.config import PRESETS

    if model != TINY and model in PRESETS and not Path(model).is_dir():
        return PRESETS[model]
    return CheckpointLayout(resolve_model(model)).config


def _rates_of(device: Device, dtype: torch.dtype) -> Rates:
    from stepvideo_bench.explain import Rates

    return Rates(*device.rates(dtype), f"{device.text} ({device.source})")


def _this_machine(
    request: ExplainRequest, config: ModelConfig
) -> tuple[str, torch.dtype, Rates, int, dict[tuple[str, str], str]]:
    """Device, dtype, probed rates, free memory, and the implementation that each site would get."""
    import torch

    from stepvideo_bench.environment import cpu_name, device_name
    from stepvideo_bench.explain import Rates
    from stepvideo_bench.probes import measure_ceilings
    from stepvideo_core.dispatch import DispatchPlan, DispatchPolicy, select_device
    from stepvideo_core.memory.estimate import available_memory
    from stepvideo_core.models.step_llm import StepLLM
    from stepvideo_core.models.transformer import StepVideoTransformer
    from stepvideo_core.models.vae import VideoVAE
    from stepvideo_core.plugins import load_registry

    registry = load_registry()
    policy = DispatchPolicy.parse(
        backend=request.backend, ops=request.ops, allow_fallback=request.allow_fallback
    )
    device = select_device(registry, policy, request.device)
    if device.type == "meta":
        raise InvalidRequest("--device meta computes nothing: take another, or --assume one")
    dtype = getattr(torch, request.dtype or ("float32" if device.type == "cpu" else "bfloat16"))
    plan = DispatchPlan(registry, policy, device=device, dtype=dtype)
    with torch.device("meta"):
        StepLLM(config.step_llm, plan)
        StepVideoTransformer(config.transformer, plan)
        VideoVAE(config.vae, plan)
    with stderr().status("probing the device"):
        ceilings = measure_ceilings(registry, device, dtype)
    rates = Rates(
        ceilings.flops_per_second,
        ceilings.bytes_per_second,
        f"probed here: products by {ceilings.gemm}, and a copy",
    )
    impls = {(choice.op, choice.site.name): choice.impl for choice in plan.choices}
    where = cpu_name() if device.type == "cpu" else device_name(device)
    return where, dtype, rates, available_memory(device), impls


def _show(explanation: Explanation, checks: list[Check]) -> None:
    from stepvideo_bench.explain import heaviest_ops
    from stepvideo_bench.units import format_bandwidth, format_rate, format_seconds
    from stepvideo_core.memory.units import format_bytes

    rates = explanation.rates
    stderr().print(
        f"{format_rate(rates.flops_per_second)}FLOP/s, "
        f"{format_bandwidth(rates.bytes_per_second)}: {escape(rates.source)}",
        soft_wrap=True,
    )
    stages = Table(box=None, pad_edge=False, header_style="bold")
    stages.add_column("stage")
    for column in ("times", "TFLOP", "at the roof", "expected", "weights", "activations"):
        stages.add_column(column, justify="right")
    stages.add_column(f"fits {format_bytes(explanation.memory)}", justify="right")
    for stage in explanation.stages:
        stages.add_row(
            stage.name,
            str(stage.times),
            f"{stage.flops / 1e12:,.3g}" if stage.flops < 1e15 else f"{stage.flops / 1e12:,.0f}",
            format_seconds(stage.roof_s),
            format_seconds(stage.expected_s),
            format_bytes(stage.weights),
            format_bytes(stage.activations),
            "yes" if stage.fits else "[bold red]no[/]",
        )
    total = (format_seconds(explanation.roof_s), format_seconds(explanation.expected_s))
    stages.add_row("[bold]all[/]", "", "", *total, "", "", "")
    print_table(stages)
    stdout().print()
    ops = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("operator", "stage", "implementation"):
        ops.add_column(column)
    for column in ("calls", "at the roof", "expected", "share of time", "of roof"):
        ops.add_column(column, justify="right")
    ops.add_column("bound")
    for name, op in heaviest_ops(explanation, _SHOWN_OPS):
        ops.add_row(
            f"{op.op}@{op.site}" if op.site else op.op,
            name,
            op.impl,
            f"{op.calls:,}",
            format_seconds(op.roof_s),
            format_seconds(op.expected_s),
            f"{op.expected_s / explanation.expected_s:.1%}",
            f"{op.share:.0%} {'measured' if op.measured else 'typical'}",
            op.bound,
        )
    print_table(ops)
    for text in explanation.advice:
        note(text)
    for check in checks:
        stderr().print(
            f"checked: {check.what}: predicted {format_seconds(check.predicted_s)}, "
            f"measured {format_seconds(check.measured_s)}, error {check.error:+.0%} "
            f"({escape(check.source)})",
            soft_wrap=True,
        )
    if not checks:
        stderr().print(
            "not checked: no measurement of this device is known; `stepvideo bench model -o "
            "F.json` makes one, --measured F.json compares",
            soft_wrap=True,
        )
