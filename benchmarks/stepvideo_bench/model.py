"""Whole-model measurements: DiT forward, VAE decode, and a run from prompt to frames."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn

from stepvideo_bench.flops import dit_flops, vae_decode_flops
from stepvideo_bench.presets import PRESETS
from stepvideo_core.dispatch import DispatchPlan, DispatchPolicy, select_device
from stepvideo_core.errors import StepVideoError
from stepvideo_core.memory.meter import PeakMeter
from stepvideo_core.models.transformer import StepVideoTransformer
from stepvideo_core.models.vae import VideoVAE
from stepvideo_core.plugins import load_registry
from stepvideo_core.record import versions

_CLIP_TOKENS, _LLM_TOKENS, _LLM_VALID = 77, 320, 128
_PROFILE_LINES = 12


@dataclass(frozen=True, kw_only=True)
class BenchRequest:
    """One measurement; see `stepvideo bench model --help`."""

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


@dataclass(frozen=True)
class _Workload:
    """Something to call repeatedly.

    count_flops is called after the measurement: counting loads torch's symbolic machinery.
    """

    call: Callable[[], object]
    input: str
    count_flops: Callable[[], int | None]
    plan: DispatchPlan


def _plan(request: BenchRequest) -> DispatchPlan:
    registry = load_registry()
    policy = DispatchPolicy.parse(
        backend=request.backend, ops=request.ops, allow_fallback=request.allow_fallback
    )
    device = select_device(registry, policy, request.device)
    default = torch.float32 if device.type == "cpu" else torch.bfloat16
    dtype = getattr(torch, request.dtype) if request.dtype else default
    return DispatchPlan(registry, policy, device=device, dtype=dtype)


def randomised(module: nn.Module, plan: DispatchPlan, seed: int = 0) -> nn.Module:
    """A module from the meta device with weights of the right scale on the plan's device."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, tensor in module.state_dict().items():
        fan_in = max(tensor[0].numel() if tensor.dim() > 1 else 1, 1)
        values = torch.randn(tensor.shape, generator=generator)
        values = values.mul_(fan_in**-0.5) if tensor.dim() > 1 else values.mul_(0.1).add_(1)
        state[key] = values.to(plan.device, plan.dtype)
    module.load_state_dict(state, assign=True)
    return module.eval().requires_grad_(False)


def _dit(request: BenchRequest) -> _Workload:
    preset, plan = PRESETS[request.preset], _plan(request)
    with torch.device("meta"):
        transformer = StepVideoTransformer(preset.config.transformer, plan)
    randomised(transformer, plan)
    options: dict[str, Any] = {"device": plan.device, "dtype": plan.dtype}
    llm_width, clip_width = preset.config.transformer.caption_channels
    llm = torch.randn(1, _LLM_TOKENS, llm_width, **options)
    clip = torch.randn(1, _CLIP_TOKENS, clip_width, **options)
    latents = torch.randn(preset.dit_latents, **options)
    times = torch.tensor([0.3], device=plan.device)

    def forward() -> object:
        # Everything that the official call does, so that the two are comparable; in a real run the
        # text, the tables and the modulation are computed once for all steps.
        text = transformer.encode_text(llm, clip, (_CLIP_TOKENS + _LLM_VALID,))
        rope = transformer.rope(latents, plan.dtype)
        return transformer(latents, transformer.modulation(times), text, rope)

    def count() -> int:
        text_tokens = _CLIP_TOKENS + _LLM_VALID
        return dit_flops(preset.config.transformer, preset.dit_latents, text_tokens)

    return _Workload(forward, f"latents {preset.dit_latents}", count, plan)


def _vae(request: BenchRequest) -> _Workload:
    preset, plan = PRESETS[request.preset], _plan(request)
    with torch.device("meta"):
        vae = VideoVAE(preset.config.vae, plan)
    randomised(vae, plan)
    latents = torch.randn(preset.vae_latents, device=plan.device, dtype=plan.dtype)
    return _Workload(
        lambda: vae.decode(latents),
        f"latents {preset.vae_latents}",
        lambda: vae_decode_flops(preset.config.vae, preset.vae_latents),
        plan,
    )


def _run(request: BenchRequest) -> _Workload:
    # Imported here, so that the text encoders' library does not weigh on the other measurements.
    from stepvideo_core.checkpoints.untrained import write_untrained
    from stepvideo_core.pipeline import StepVideoPipeline

    folder = Path(tempfile.mkdtemp(prefix="stepvideo-bench-")) / "tiny"
    write_untrained(folder)
    pipe = StepVideoPipeline.from_pretrained(
        folder,
        backend=request.backend,
        ops=request.ops,
        allow_fallback=request.allow_fallback,
        device=request.device,
        dtype=getattr(torch, request.dtype) if request.dtype else None,
    )
    sampling = pipe.config.sampling
    text = (
        f"tiny, {sampling.num_frames} frames of {sampling.width}x{sampling.height}, "
        f"{sampling.num_steps} steps"
    )
    return _Workload(lambda: pipe("a red circle moves right"), text, lambda: None, pipe.plan)


BENCHES: dict[str, Callable[[BenchRequest], _Workload]] = {"dit": _dit, "vae": _vae, "run": _run}


@torch.inference_mode()
def measure(request: BenchRequest) -> dict[str, Any]:
    """Run one measurement in this process; seconds, bytes, FLOP rates and the environment."""
    if request.threads is not None:
        torch.set_num_threads(request.threads)
    workload = BENCHES[request.name](request)
    meter = PeakMeter(workload.plan.device)
    start_bytes = int(psutil.Process().memory_info().rss)
    workload.call()
    seconds = []
    for _ in range(request.repeats):
        meter.synchronize()
        start = time.perf_counter()
        workload.call()
        meter.synchronize()
        seconds.append(time.perf_counter() - start)
    host_peak, device_peak = meter.host_peak(), meter.device_peak()
    flops = workload.count_flops()
    ordered = torch.tensor(seconds, dtype=torch.float64)
    median = float(ordered.median())
    row: dict[str, Any] = {
        "name": request.name,
        "preset": request.preset,
        "input": workload.input,
        "seconds": seconds,
        "median_s": median,
        "p20_s": float(ordered.quantile(0.2)),
        "p80_s": float(ordered.quantile(0.8)),
        "flops": flops,
        "tflops_per_second": flops / median / 1e12 if flops else None,
        "start_bytes": start_bytes,
        "peak_bytes": host_peak,
        "device_peak_bytes": device_peak,
        "dtype": str(workload.plan.dtype).removeprefix("torch."),
        "device": str(workload.plan.device),
        "plan": workload.plan.as_json(),
        "environment": {
            "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "machine": platform.machine(),
            "cpu": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
            "versions": versions(),
        },
        "request": asdict(request),
    }
    if request.profile:
        row["profile"] = _profile(workload.call)
    return row


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


if __name__ == "__main__":
    fields = json.loads(sys.argv[1])
    sys.stdout.write(json.dumps(measure(BenchRequest(**fields | {"ops": tuple(fields["ops"])}))))
