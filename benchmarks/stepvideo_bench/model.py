"""`bench model`: whole models, each in a process of its own, so that its peak is its own."""

from __future__ import annotations

import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import psutil
import torch

from stepvideo_bench.environment import fingerprint
from stepvideo_bench.explain import memory_needs
from stepvideo_bench.host import release_memory
from stepvideo_bench.presets import BenchPreset, find_preset
from stepvideo_bench.probes import measure_ceilings
from stepvideo_bench.subjects import MODELS, Subject, dit_cost, run
from stepvideo_bench.timing import Effort, Timing
from stepvideo_core.dispatch import DispatchPlan, DispatchPolicy, select_device
from stepvideo_core.errors import StepVideoError
from stepvideo_core.memory.estimate import available_memory
from stepvideo_core.memory.meter import PeakMeter
from stepvideo_core.memory.units import format_bytes
from stepvideo_core.plugins import load_registry
from stepvideo_core.request import build_settings

_PROFILE_LINES = 12
_STAGE_OF = {"dit": "transformer", "block": "transformer", "vae": "vae"}
_PROBE = Effort(repeats=5, seconds=1.0)


@dataclass(frozen=True, kw_only=True)
class BenchRequest:
    """One measurement; see `stepvideo bench model --help`.

    layers: depth to measure the transformer at instead of the preset's; the full depth is then
    extrapolated from 1 and `layers`.
    """

    name: str
    preset: str
    repeats: int
    threads: int | None
    profile: bool
    backend: str
    ops: tuple[str, ...]
    allow_fallback: bool
    device: str | None
    dtype: str | None
    layers: int | None = None


def measure(request: BenchRequest) -> dict[str, Any]:
    """Run one measurement in this process: seconds, bytes, rates, and what they depend on.

    A preset that does not fit gives a row with status `skipped` and what it would need.
    """
    if request.threads is not None:
        torch.set_num_threads(request.threads)
    preset, plan = find_preset(request.preset), _plan(request)
    dtype = str(plan.dtype).removeprefix("torch.")
    row: dict[str, Any] = {
        "name": request.name,
        "preset": request.preset,
        "dtype": dtype,
        "device": str(plan.device),
        "environment": fingerprint(plan.registry, plan.device),
        "request": asdict(request),
    }
    reason = _too_large(request, preset, plan)
    if reason is not None:
        return row | {"status": "skipped", "reasons": [reason]}
    # Before the measurement, so that the probes' buffers are no part of its peak.
    ceilings = measure_ceilings(plan.registry, plan.device, plan.dtype, _PROBE)
    row |= {"status": "measured", "reasons": [], "ceilings": ceilings.as_json()}
    depth = preset.config.transformer.num_layers
    with torch.inference_mode():
        if request.name == "dit" and request.layers is not None and request.layers < depth:
            subject, samples, extra = _extrapolated(preset, plan, request.layers, request.repeats)
        else:
            subject = _subject(request, preset, plan, dtype)
            samples, extra = _timed(subject, plan, request.repeats)
        profile = _profile(subject.call) if request.profile else None
    row |= extra | _figures(subject, samples)
    cost = subject.cost()
    roof = None if cost is None else ceilings.seconds(cost)
    row |= {
        "flops": None if cost is None else cost.flops,
        "num_bytes": None if cost is None else cost.num_bytes,
        "tflops_per_second": cost.flops / row["median_s"] / 1e12 if cost else None,
        "roof_s": roof,
        "ceiling_pct": None if roof is None else 100 * roof / row["median_s"],
    }
    if profile is not None:
        row["profile"] = profile
    return row


def _plan(request: BenchRequest) -> DispatchPlan:
    registry = load_registry()
    policy = DispatchPolicy.parse(
        backend=request.backend, ops=request.ops, allow_fallback=request.allow_fallback
    )
    device = select_device(registry, policy, request.device)
    default = torch.float32 if device.type == "cpu" else torch.bfloat16
    dtype = getattr(torch, request.dtype) if request.dtype else default
    return DispatchPlan(registry, policy, device=device, dtype=dtype)


def _too_large(request: BenchRequest, preset: BenchPreset, plan: DispatchPlan) -> str | None:
    """What a preset would need, if that is more than there is."""
    if request.name == "run":
        return None
    if request.name == "block":
        preset = _at_depth(preset, 1)
    elif request.name == "dit" and request.layers is not None:
        preset = _at_depth(preset, request.layers)
    latents = preset.vae_latents if request.name == "vae" else preset.dit_latents
    settings, _ = build_settings(preset.config, "any", {"latent_shape": latents, "cfg_scale": 1.0})
    stage = _STAGE_OF.get(request.name, request.name)
    needs = memory_needs(preset.config, settings, plan.dtype)
    need = next(need for need in needs if need.name == stage)
    free = available_memory(plan.device)
    if need.total <= free:
        return None
    shallower = "; --layers 2 measures two layers and extrapolates" if request.name == "dit" else ""
    return (
        f"{stage} needs {format_bytes(need.total)} ({format_bytes(need.weights)} weights) and "
        f"{plan.device} has {format_bytes(free)}{shallower}"
    )


def _at_depth(preset: BenchPreset, layers: int) -> BenchPreset:
    transformer = replace(preset.config.transformer, num_layers=layers)
    return replace(preset, config=replace(preset.config, transformer=transformer))


def _subject(request: BenchRequest, preset: BenchPreset, plan: DispatchPlan, dtype: str) -> Subject:
    if request.name in MODELS:
        return MODELS[request.name](preset, plan)
    return run(request.backend, request.ops, request.allow_fallback, str(plan.device), dtype)


def _timed(
    subject: Subject, plan: DispatchPlan, repeats: int
) -> tuple[tuple[float, ...], dict[str, Any]]:
    """Seconds of each call behind one warm-up, and the peaks of them all."""
    gc.collect()  # a model that was measured before must not count
    release_memory(plan.device)
    meter = PeakMeter(plan.device)
    start_bytes = int(psutil.Process().memory_info().rss)
    subject.call()
    subject.first_frame_s.clear()
    seconds = []
    for _ in range(repeats):
        meter.synchronize()
        start = time.perf_counter()
        subject.call()
        meter.synchronize()
        seconds.append(time.perf_counter() - start)
    peaks = {
        "start_bytes": start_bytes,
        "peak_bytes": meter.host_peak(),
        "device_peak_bytes": meter.device_peak(),
    }
    return tuple(seconds), peaks


def _extrapolated(
    preset: BenchPreset, plan: DispatchPlan, layers: int, repeats: int
) -> tuple[Subject, tuple[float, ...], dict[str, Any]]:
    """A forward of the full depth from forwards of 1 and of `layers` layers, which cost alike."""
    depth = preset.config.transformer.num_layers
    dit = MODELS["dit"]
    short, _ = _timed(dit(_at_depth(preset, 1), plan), plan, repeats)
    subject = dit(_at_depth(preset, layers), plan)
    long, peaks = _timed(subject, plan, repeats)
    samples = tuple(
        a + (b - a) * (depth - 1) / (layers - 1) for a, b in zip(short, long, strict=True)
    )
    whole = replace(subject, cost=lambda: dit_cost(preset, plan.dtype))
    extra = {
        "extrapolated": {
            "from_layers": [1, layers],
            "to_layers": depth,
            "measured_s": [statistics.median(short), statistics.median(long)],
        }
    }
    return whole, samples, peaks | extra


def _figures(subject: Subject, samples: tuple[float, ...]) -> dict[str, Any]:
    timing = Timing(samples)
    figures: dict[str, Any] = {
        "input": subject.input,
        "seconds": list(samples),
        "median_s": timing.median,
        "p20_s": timing.quantile(0.2),
        "p80_s": timing.quantile(0.8),
        "plan": subject.plan.as_json(),
    }
    for unit, count in subject.per_call.items():
        figures[f"{unit}_per_second"] = count / timing.median
    if subject.first_frame_s:
        figures["first_frame_s"] = statistics.median(subject.first_frame_s)
        figures["stages"] = subject.stages
    return figures


def _profile(call: Callable[[], object]) -> list[dict[str, Any]]:
    """Shares of CPU time by torch operator, largest first."""
    with torch.profiler.profile() as profiler:
        call()
    events = sorted(profiler.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events) or 1.0
    return [
        {"op": event.key, "share": event.self_cpu_time_total / total, "calls": event.count}
        for event in events[:_PROFILE_LINES]
    ]


def run_isolated(request: BenchRequest) -> dict[str, Any]:
    """`measure` in a fresh process, so that peaks and caches are its own."""
    process = subprocess.run(
        [sys.executable, "-m", "stepvideo_bench.model", json.dumps(asdict(request))],
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        last = process.stderr.strip().splitlines()[-1:] or ["no message"]
        raise StepVideoError(f"the {request.name} benchmark failed: {last[0]}")
    row: dict[str, Any] = json.loads(process.stdout)
    return row


def model_record(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The object of `bench model --json`: the rows, and the machine that they share."""
    return {"format": 1, "kind": "model", "environment": rows[0]["environment"], "rows": rows}


if __name__ == "__main__":
    fields = json.loads(sys.argv[1])
    sys.stdout.write(json.dumps(measure(BenchRequest(**fields | {"ops": tuple(fields["ops"])}))))
