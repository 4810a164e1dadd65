"""Predictions against what was measured: the error of the prediction is part of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from stepvideo_bench.devices import Device
from stepvideo_bench.explain import Explanation, Rates, Shares, predict_ops
from stepvideo_bench.presets import PRESETS
from stepvideo_bench.subjects import TEXT_TOKENS
from stepvideo_bench.workloads import (
    Workload,
    decode_workload,
    text_workloads,
    transformer_workloads,
)
from stepvideo_core.request import GenerationSettings


@dataclass(frozen=True, kw_only=True)
class Check:
    """A prediction beside a measurement. error: predicted over measured, less one."""

    what: str
    source: str
    predicted_s: float
    measured_s: float

    @property
    def error(self) -> float:
        return self.predicted_s / self.measured_s - 1

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"error": self.error}


def check_records(records: Iterable[tuple[str, Mapping[str, Any]]], shares: Shares) -> list[Check]:
    """Predict every measured row of records of `bench model` from the ceilings beside it.

    Rows without ceilings, extrapolated ones and whole runs (whose time is not only the models')
    have no prediction.
    """
    checks = []
    for name, record in records:
        for row in record["rows"]:
            rates = row.get("ceilings")
            if record.get("kind") == "model" and rates and not row.get("extrapolated"):
                workloads = _workloads(row)
                if workloads:
                    device = Rates(rates["flops_per_second"], rates["bytes_per_second"], name)
                    predicted = sum(
                        op.expected_s
                        for workload in workloads
                        for op in predict_ops(workload, device, shares)
                    )
                    what = f"{row['name']} at {row['preset']}, {row['dtype']}"
                    checks.append(
                        Check(
                            what=what,
                            source=name,
                            predicted_s=predicted,
                            measured_s=row["median_s"],
                        )
                    )
    return checks


def _workloads(row: Mapping[str, Any]) -> list[Workload]:
    preset, dtype = PRESETS[row["preset"]], getattr(torch, row["dtype"])
    if row["name"] == "dit":
        return transformer_workloads(preset.config, preset.dit_latents, TEXT_TOKENS, dtype)
    if row["name"] == "vae":
        return [decode_workload(preset.config, preset.vae_latents, dtype)]
    if row["name"] in ("step_llm", "clip"):
        found = text_workloads(preset.config, dtype, 1)
        return [workload for workload in found if workload.name == row["name"]]
    return []


def check_published(
    explanation: Explanation, device: Device, settings: GenerationSettings
) -> list[Check]:
    """The denoising step of this request, where somebody has published one of the same size."""
    size = (settings.num_frames, settings.height, settings.width)
    step = explanation.stage("denoise").expected_s / settings.num_steps
    return [
        Check(
            what=f"one guided step at {size[2]}x{size[1]}x{size[0]}",
            source=published.source,
            predicted_s=step,
            measured_s=published.seconds_per_step,
        )
        for published in device.published
        if published.size == size and settings.uses_guidance
    ]
