"""Whole models on the virtual device: whatever assumes a CPU, CUDA or float64 fails there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from stepvideo_core import StepVideoPipeline
from stepvideo_core.pipeline import VideoResult
from stepvideo_virtual_npu import recorded_calls

_REQUEST = {"frames": 17, "height": 32, "width": 48, "steps": 2, "seed": 5}


def generate(folder: Path, device: str, backend: str = "reference", **options: bool) -> VideoResult:
    pipe = StepVideoPipeline.from_pretrained(
        folder, backend=backend, device=device, dtype=torch.float32, **options
    )
    return pipe("a red fox in the snow", **_REQUEST)


def relative(result: Tensor, truth: Tensor) -> float:
    return float((result - truth).abs().max() / truth.abs().max())


@pytest.fixture(scope="module")
def on_cpu(tiny_checkpoint: Path) -> VideoResult:
    return generate(tiny_checkpoint, "cpu")


@pytest.mark.parametrize("backend", ["reference", "npu"])
def test_a_whole_run_equals_the_cpus(
    backend: str,
    tiny_checkpoint: Path,
    on_cpu: VideoResult,
    compatible_gelu: None,
) -> None:
    """In float32, so that nothing but the order of sums differs."""
    with recorded_calls() as calls:
        result = generate(tiny_checkpoint, "npu:0", backend)
    assert relative(result.latents, on_cpu.latents) < 2e-5
    assert (result.frames.int() - on_cpu.frames.int()).abs().max() <= 1
    assert result.record["device"] == "npu:0"
    peaks = [stage["device_peak_bytes"] for stage in result.record["stages"]]
    assert all(peak > 0 for peak in peaks)
    called = {call.op for call in calls}
    assert len(calls) > 500
    if backend == "npu":
        assert called >= {
            *("npu::npu_fusion_attention", "npu::npu_rms_norm", "npu::npu_rotary_mul"),
            *("npu::npu_group_norm_silu", "npu::npu_gelu"),
        }


def test_native_gelu_shows_in_the_text_encoder(
    tiny_checkpoint: Path, on_cpu: VideoResult, plain_gelu: None
) -> None:
    """BERT wants the erf form, which the native operator computes with the compatible
    implementation only; the difference is small, and seen."""
    result = generate(tiny_checkpoint, "npu:0")
    assert 2e-5 < relative(result.latents, on_cpu.latents) < 1e-2


def test_nothing_is_left_on_the_device(tiny_checkpoint: Path, on_cpu: VideoResult) -> None:
    torch.accelerator.empty_cache()
    before = torch.accelerator.memory_allocated()
    generate(tiny_checkpoint, "npu:0")
    assert torch.accelerator.memory_allocated() - before < 1 << 20
