"""What a run will take, before it runs: time and memory per stage and operator, from the counts.

The time of an operator is its roof over the share of the roof that its implementation reaches. The
share is a measured one where a record of `bench ops` has it, else what good public kernels reach.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from stepvideo_bench.calls import RecordingPlan
from stepvideo_bench.presets import TEXT_TOKENS
from stepvideo_bench.workloads import Workload, run_workloads
from stepvideo_core.config import ModelConfig
from stepvideo_core.memory.estimate import StageNeed, stage_needs
from stepvideo_core.models.clip import HunyuanClip
from stepvideo_core.models.step_llm import StepLLM
from stepvideo_core.models.transformer import StepVideoTransformer
from stepvideo_core.models.vae import VideoVAE
from stepvideo_core.ops.cost import Cost
from stepvideo_core.plugins import load_registry
from stepvideo_core.request import GenerationSettings

OUTSIDE = "(beside the operators)"
# Shares of the probed roof that the best public kernels reach: cuDNN attention 600 and cuBLAS 700
# of 798 TFLOP/s on H100, fused norms 2.55 of 3.0 TB/s. Of 3-D convolutions at these sizes nobody
# has published any; 0.6 is an assumption.
TYPICAL_SHARES: Mapping[str, float] = {
    "attention": 0.75,
    "linear": 0.87,
    "causal_conv3d": 0.6,
    "conv2d": 0.6,
}
TYPICAL_MEMORY_SHARE = 0.85

# The stage of `stage_needs` whose weights and activations are resident during a workload.
_MEMORY_OF = {
    "step_llm": "step_llm",
    "clip": "clip",
    "text keys": "transformer",
    "denoise": "transformer",
    "decode": "vae",
}


@dataclass(frozen=True)
class Rates:
    """What a device does at best: operations and bytes per second, and who says so."""

    flops_per_second: float
    bytes_per_second: float
    source: str

    def roof(self, cost: Cost) -> float:
        """Seconds at these rates."""
        return cost.roof_seconds(self.flops_per_second, self.bytes_per_second)

    def bound(self, cost: Cost) -> str:
        """`compute` or `memory`."""
        by_compute = cost.flops / self.flops_per_second
        return "compute" if by_compute > cost.num_bytes / self.bytes_per_second else "memory"


@dataclass(frozen=True, kw_only=True)
class OpPrediction:
    """One operator at one site over a whole run. share: of the roof, measured or typical."""

    op: str
    site: str
    impl: str
    calls: int
    flops: int
    num_bytes: int
    bound: str
    roof_s: float
    share: float
    measured: bool
    expected_s: float


@dataclass(frozen=True, kw_only=True)
class StagePrediction:
    """One stage of a run. weights, activations: bytes; loading is not in the times."""

    name: str
    times: int
    flops: int
    num_bytes: int
    roof_s: float
    expected_s: float
    weights: int
    activations: int
    fits: bool
    ops: tuple[OpPrediction, ...]


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """A whole run predicted. memory: bytes that the device has to give."""

    device: str
    rates: Rates
    memory: int
    stages: tuple[StagePrediction, ...]
    advice: tuple[str, ...] = ()

    @property
    def expected_s(self) -> float:
        return sum(stage.expected_s for stage in self.stages)

    @property
    def roof_s(self) -> float:
        return sum(stage.roof_s for stage in self.stages)

    @property
    def fits(self) -> bool:
        return all(stage.fits for stage in self.stages)

    def stage(self, name: str) -> StagePrediction:
        """A stage by name."""
        return next(stage for stage in self.stages if stage.name == name)

    def as_json(self) -> dict[str, Any]:
        """The part `explanation` of `plan --explain --json`."""
        return asdict(self) | {
            "expected_s": self.expected_s,
            "roof_s": self.roof_s,
            "fits": self.fits,
        }


Shares = Mapping[tuple[str, str], float]
"""(op, site) -> share of the roof that the planned implementation was measured at."""


def measured_shares(records: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], float]:
    """What `auto`'s implementations reached in records of `bench ops`.

    Of several sizes the one with most work counts, which is the nearest to a real run. Figures
    above the roof are doubtful and left out.
    """
    best: dict[tuple[str, str], tuple[float, float]] = {}
    for record in records:
        for row in record["rows"]:
            usable = row.get("planned") and row.get("ceiling_pct") and not row["above_ceiling"]
            if usable:
                key = (row["op"], row["site"])
                if key not in best or row["roof_s"] > best[key][0]:
                    best[key] = (row["roof_s"], row["ceiling_pct"] / 100)
    return {key: share for key, (_, share) in best.items()}


def typical_share(op: str, bound: str) -> float:
    """What good kernels reach of the roof; see `TYPICAL_SHARES`."""
    return TYPICAL_MEMORY_SHARE if bound == "memory" else TYPICAL_SHARES.get(op, 0.75)


def explain(
    config: ModelConfig,
    settings: GenerationSettings,
    *,
    dtype: torch.dtype,
    device: str,
    rates: Rates,
    memory: int,
    shares: Shares | None = None,
    impls: Mapping[tuple[str, str], str] | None = None,
) -> Explanation:
    """Predict a run of `settings`.

    memory: bytes that the device can give. impls: the planned implementation of each (op, site),
    where it is known.
    """
    latents = settings.latent_shape(config.vae)
    branches = 2 if settings.uses_guidance else 1
    workloads = run_workloads(
        config,
        latents,
        text_tokens=TEXT_TOKENS,
        steps=settings.num_steps,
        branches=branches,
        dtype=dtype,
    )
    needs = {need.name: need for need in memory_needs(config, settings, dtype)}
    stages = tuple(
        _stage(workload, rates, needs[_MEMORY_OF[workload.name]], memory, shares or {}, impls or {})
        for workload in workloads
    )
    return Explanation(device=device, rates=rates, memory=memory, stages=stages)


def memory_needs(
    config: ModelConfig, settings: GenerationSettings, dtype: torch.dtype
) -> list[StageNeed]:
    """The estimate that a run checks too, for a model that need not be here."""
    return stage_needs(config, _modules(config, dtype), settings, dtype, torch.float32)


@functools.lru_cache(maxsize=4)
def _modules(config: ModelConfig, dtype: torch.dtype) -> dict[str, nn.Module]:
    """The four models without weights; looking for a size that fits asks for them many times."""
    plan = RecordingPlan(load_registry(), dtype)
    with torch.device("meta"):
        return {
            "step_llm": StepLLM(config.step_llm, plan),
            "clip": HunyuanClip(config.clip),
            "transformer": StepVideoTransformer(config.transformer, plan),
            "vae": VideoVAE(config.vae, plan),
        }


def _stage(
    workload: Workload,
    rates: Rates,
    need: StageNeed,
    memory: int,
    shares: Shares,
    impls: Mapping[tuple[str, str], str],
) -> StagePrediction:
    ops = predict_ops(workload, rates, shares, impls)
    cost = workload.cost
    return StagePrediction(
        name=workload.name,
        times=workload.times,
        flops=cost.flops,
        num_bytes=cost.num_bytes,
        roof_s=sum(op.roof_s for op in ops),
        expected_s=sum(op.expected_s for op in ops),
        weights=need.weights,
        activations=need.activations,
        fits=need.total <= memory,
        ops=tuple(sorted(ops, key=lambda op: -op.expected_s)),
    )


def predict_ops(
    workload: Workload,
    rates: Rates,
    shares: Shares,
    impls: Mapping[tuple[str, str], str] | None = None,
) -> list[OpPrediction]:
    """One prediction per operator and site of a workload, and one for what is beside them."""
    costs: dict[tuple[str, str], list[tuple[Cost, int]]] = {}
    for call, count in workload.log.calls.items():
        key = (call.op.name, call.site.name)
        costs.setdefault(key, []).append((call.cost, count * workload.times))
    costs[OUTSIDE, ""] = [(workload.log.outside, workload.times)]
    found = []
    for (op, site), parts in costs.items():
        total = sum((cost * count for cost, count in parts), Cost())
        # The roof of each call, not of their sum: some are bound by memory, some by compute.
        roof = sum(rates.roof(cost) * count for cost, count in parts)
        bound = rates.bound(total)
        share = shares.get((op, site))
        used = typical_share(op, bound) if share is None else share
        found.append(
            OpPrediction(
                op=op,
                site=site,
                impl=(impls or {}).get((op, site), ""),
                calls=sum(count for _, count in parts),
                flops=total.flops,
                num_bytes=total.num_bytes,
                bound=bound,
                roof_s=roof,
                share=used,
                measured=share is not None,
                expected_s=roof / used,
            )
        )
    return found


def heaviest_ops(explanation: Explanation, count: int) -> Sequence[tuple[str, OpPrediction]]:
    """(stage, operator) pairs that take most of the expected time."""
    pairs = [(stage.name, op) for stage in explanation.stages for op in stage.ops]
    return sorted(pairs, key=lambda pair: -pair[1].expected_s)[:count]
