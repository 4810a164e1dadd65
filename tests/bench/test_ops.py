"""`bench ops`: every row runs, counts what it should, and refuses what this machine cannot do."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from stepvideo_bench import trial
from stepvideo_bench.baselines import compiled, why_not_compile
from stepvideo_bench.calls import CallLog, heaviest
from stepvideo_bench.footprint import workspace_bytes
from stepvideo_bench.inputs import copies, make_arguments
from stepvideo_bench.ops import Group, OpsRequest, list_groups
from stepvideo_bench.oracle import Truth
from stepvideo_bench.presets import PRESETS
from stepvideo_bench.probes import Ceilings
from stepvideo_bench.rows import OpsRecord, Row
from stepvideo_bench.timing import (
    Effort,
    Timing,
    cache_bytes,
    interleaved,
    is_cold,
    sets_for_cold_cache,
)
from stepvideo_bench.trial import MIN_PASSES, GroupTrial
from stepvideo_bench.workloads import decode_workload, run_workloads, transformer_workloads
from stepvideo_core.dispatch import Backend, BackendRegistry, DispatchPlan, DispatchPolicy
from stepvideo_core.ops import CONTRACTS, OpImpl
from stepvideo_core.plugins import load_registry
from stepvideo_reference.backend import reference_backend

CPU = torch.device("cpu")
FAST = Ceilings(1e15, 1e15, "probe", (1.0,), (1.0,))
QUICK: dict[str, Any] = {"passes": 2, "repeats": 1, "seconds": 0.0}


def plan_of(registry: BackendRegistry, dtype: torch.dtype = torch.float32) -> DispatchPlan:
    return DispatchPlan(registry, DispatchPolicy(), device=CPU, dtype=dtype)


def test_every_row_runs(tiny_record: OpsRecord) -> None:
    assert [row for row in tiny_record.rows if row.status == "failed"] == []
    measured = [row for row in tiny_record.rows if row.status == "measured"]
    # RoPE alone is a part of its fusion, and encoding is no part of a text-to-video run.
    assert {row.op for row in measured} == set(CONTRACTS) - {"rope_3d", "pixel_unshuffle_add"}
    for row in measured:
        assert len(row.samples) == 2
        assert row.median_s and row.p20_s and row.p80_s
        assert row.p20_s <= row.median_s <= row.p80_s
        assert row.ceiling_pct is not None and row.gbs
        assert row.above_ceiling == (row.ceiling_pct > 100)
        assert (row.tflops is None) == (row.flops == 0)
        assert row.bound in ("compute", "memory")
        assert row.oracle == "float64" and row.rel_error is not None
        assert row.rel_error < 1e-5, row
        if row.impl == "reference:eager":
            assert row.speedup == 1
    for call in {row.call for row in measured}:
        assert sum(row.planned for row in measured if row.call == call) == 1, call


def test_an_out_of_tree_backend_is_measured_by_registering(tiny_record: OpsRecord) -> None:
    rows = [row for row in tiny_record.rows if row.impl.startswith("numpy64:")]
    assert {row.op for row in rows} == {"attention", "rms_norm", "adaln_modulate", "gated_residual"}
    assert {row.status for row in rows} == {"measured"}


def test_the_record_says_what_it_depends_on(tiny_record: OpsRecord) -> None:
    record = tiny_record.as_json()
    assert record["environment"]["versions"]["torch"] == torch.__version__
    assert record["environment"]["machine"]["threads"] == 1
    assert record["ceilings"]["flops_per_second"] > 1e8
    assert record["ceilings"]["datasheet"] is None
    assert {row["impl"] for row in record["plan"]} >= {"reference:sdpa", "reference:onednn"}
    assert OpsRecord.from_json(record) == tiny_record


class TestRecordedCalls:
    def test_a_forward_of_the_official_size_is_10_682_tflop(self) -> None:
        preset = PRESETS["51f"]
        config = replace(
            preset.config, transformer=replace(preset.config.transformer, num_layers=1)
        )
        latents = PRESETS["204f"].dit_latents
        keys, forward = transformer_workloads(config, latents, 397, torch.bfloat16)
        operators = sum(
            (
                call.cost * count
                for log in (keys.log, forward.log)
                for call, count in log.calls.items()
            ),
            start=type(keys.cost)(),
        )
        assert round(48 * operators.flops / 1e12) == 10_682

    def test_a_decoder_chunk_of_the_official_size_is_273_4_tflop(self) -> None:
        preset = PRESETS["204f"]
        decode = decode_workload(preset.config, preset.vae_latents, torch.bfloat16)
        assert decode.times == 12
        assert round(decode.log.cost.flops / 1e12, 1) == 273.4

    def test_a_whole_run_names_its_stages(self) -> None:
        preset = PRESETS["tiny"]
        workloads = run_workloads(
            preset.config,
            preset.dit_latents,
            text_tokens=20 + 77,
            steps=3,
            branches=2,
            dtype=torch.float32,
        )
        stages = {workload.name: workload.times for workload in workloads}
        assert stages == {"step_llm": 2, "clip": 2, "text keys": 2, "denoise": 6, "decode": 2}
        assert all(workload.cost.num_bytes > 0 for workload in workloads)

    def test_what_happens_beside_the_operators_is_counted(self) -> None:
        log = CallLog()
        with log:
            a, b = torch.empty(4, 5, device="meta"), torch.empty(5, 6, device="meta")
            a @ b
            a.view(20)
            a.add_(1)
        assert log.outside.flops == 2 * 4 * 5 * 6
        assert log.outside.num_bytes == 4 * (20 + 30 + 24) + 2 * 4 * 20

    def test_all_shapes_are_more(self) -> None:
        preset = PRESETS["tiny"]
        log = decode_workload(preset.config, preset.vae_latents, torch.float32).log
        assert len(list(heaviest(log, None))) == len(log.calls) > len(list(heaviest(log, 1)))


def one_group(op: str, registry: BackendRegistry, **settings: Any) -> Any:
    request = OpsRequest(ops=(op,), **{**QUICK, "compile": False, **settings})
    return request, list_groups(request, registry, plan_of(registry))[0]


def measured(
    group: Group, request: OpsRequest, registry: BackendRegistry, ceilings: Ceilings = FAST
) -> dict[str, Row]:
    """The rows of one group after all passes, by implementation."""
    one = GroupTrial(group, request, registry, CPU, ceilings)
    for _ in range(request.passes):
        one.take_pass()
    return {row.impl: row for row in one.rows(ceilings)}


def test_rotary_tables_keep_the_contracts_repetition() -> None:
    _, group = one_group("qk_norm_rope", load_registry())
    *_, cos, sin, axes = make_arguments(group.call, CPU)
    assert torch.allclose(cos**2 + sin**2, torch.ones_like(cos))
    for part in cos.split(axes, dim=1):
        first, second = part.chunk(2, dim=1)
        assert torch.equal(first, second)


def test_copies_are_apart_in_memory() -> None:
    x = torch.ones(3)
    sets = copies((x, 1, None), 3)
    assert sets[0][0] is x
    assert len({value[0].data_ptr() for value in sets}) == 3
    assert all(torch.equal(value[0], x) for value in sets)


def test_rotation_covers_the_cache() -> None:
    cache = cache_bytes(CPU)
    assert cache >= 1 << 18
    assert sets_for_cold_cache(3 * cache, CPU, 1 << 40) == 1
    assert sets_for_cold_cache(cache // 4, CPU, 1 << 40) == 8
    assert sets_for_cold_cache(cache // 4, CPU, cache) == 4
    assert is_cold(cache // 4, 8, CPU) and not is_cold(cache // 4, 7, CPU)


def test_implementations_take_turns() -> None:
    order: list[str] = []
    functions = {name: (lambda name=name: order.append(name)) for name in "ab"}
    timings = interleaved(functions, [()], CPU, Effort(repeats=2, seconds=0.0, min_samples=2))
    assert {len(timing.samples) for timing in timings.values()} == {2}
    changes = sum(first != second for first, second in itertools.pairwise(order))
    assert changes >= 5


def test_quantiles() -> None:
    timing = Timing((4.0, 1.0, 2.0, 3.0, 5.0))
    assert (timing.median, timing.quantile(0.2), timing.quantile(0.8)) == (3.0, 1.8, 4.2)


def test_the_workspace_is_what_the_definition_allocates() -> None:
    _, group = one_group("gelu_tanh", load_registry())
    eager = next(c.fn for c in group.candidates if c.address == "reference:eager")
    (spec,) = group.call.specs
    assert workspace_bytes(eager, group.call) == spec.num_bytes
    assert workspace_bytes(lambda x: x.numpy(), group.call) == spec.num_bytes


def _registry(fn: Any, why_not: Any = lambda site: []) -> BackendRegistry:
    registry = BackendRegistry()
    registry.add(reference_backend())
    impl: OpImpl[Any] = OpImpl(op=CONTRACTS["gelu_tanh"], name="planted", fn=fn, why_not=why_not)
    registry.add(Backend(name="mine", device_type="cpu", why_not=list, load=lambda: [impl]))
    return registry


def _rows(registry: BackendRegistry) -> dict[str, Row]:
    request, group = one_group("gelu_tanh", registry)
    return measured(group, request, registry)


def test_a_row_has_one_sample_per_pass_and_stops_when_its_time_is_up() -> None:
    registry = load_registry()
    request, group = one_group("gelu_tanh", registry, passes=7, repeats=3, seconds=1e9)
    assert {len(row.samples) for row in measured(group, request, registry).values()} == {7}
    request = replace(request, seconds=0.0)
    counts = {len(row.samples) for row in measured(group, request, registry).values()}
    assert counts == {MIN_PASSES}


def test_probes_are_measured_in_every_pass(tiny_record: OpsRecord) -> None:
    for name in ("gemm_samples", "copy_samples"):
        assert len(tiny_record.ceilings[name]) == tiny_record.settings["passes"] == 2


def test_two_shapes_of_one_definition_stay_compiled() -> None:
    """What the second shape needs must not be compiled again in the next pass, nor the first's."""
    compilations: list[Any] = []

    def count(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        compilations.append(graph)
        return graph.forward

    functions = [compiled(_doubled, backend=count) for _ in range(12)]
    for _ in range(3):
        for size, function in enumerate(functions, start=2):
            assert function(torch.ones(size)).tolist() == [2.0] * size
    assert len(compilations) == len(functions)


def _doubled(x: torch.Tensor) -> torch.Tensor:
    return 2 * x


def test_a_planted_error_shows_in_its_row() -> None:
    gelu = torch.nn.functional.gelu
    rows = _rows(_registry(lambda x: gelu(x, approximate="tanh") * 1.01))
    assert rows["mine:planted"].rel_error == pytest.approx(0.01, rel=0.01)
    assert (rows["reference:eager"].rel_error or 0) < 1e-6
    assert rows["mine:planted"].planned and not rows["reference:eager"].planned


def test_one_that_crashes_costs_only_its_own_row() -> None:
    def crash(x: Any) -> Any:
        raise ZeroDivisionError("no such kernel")

    rows = _rows(_registry(crash))
    assert rows["mine:planted"].status == "failed"
    assert rows["mine:planted"].reasons == ("ZeroDivisionError: no such kernel",)
    assert rows["reference:eager"].status == "measured"


def test_a_refusal_is_skipped_with_its_reasons() -> None:
    rows = _rows(_registry(lambda x: x, lambda site: [f"width {site.width} is odd"]))
    assert rows["mine:planted"].status == "skipped"
    assert "is odd" in rows["mine:planted"].reasons[0]


@pytest.mark.parametrize(
    ("free", "row_seconds", "reason"),
    [(1 << 20, 1e9, "GiB, and cpu has"), (1 << 50, 1e-3, "s at this device's full rate")],
)
def test_official_sizes_are_refused_with_a_number(
    monkeypatch: pytest.MonkeyPatch, free: int, row_seconds: float, reason: str
) -> None:
    monkeypatch.setattr(trial, "available_memory", lambda device: free)
    registry = load_registry()
    request = OpsRequest(
        presets=("51f",), ops=("attention",), sites=("dit.self",), row_seconds=row_seconds
    )
    (group,) = list_groups(request, registry, plan_of(registry))
    slow = Ceilings(1e12, 1e10, "probe", (1.0,), (1.0,))
    rows = measured(group, request, registry, slow)
    assert {row.status for row in rows.values()} == {"skipped"}
    assert all(reason in row.reasons[0] for row in rows.values()), rows


def test_scratch_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = load_registry()
    request, group = one_group("attention", registry, sites=("step_llm.self",))
    eager = next(c.fn for c in group.candidates if c.address == "reference:eager")
    need = workspace_bytes(eager, group.call)
    least = group.call.num_bytes + group.call.cost.num_bytes
    assert least < need
    # Arguments and results fit, what the definition makes on the way does not.
    monkeypatch.setattr(trial, "available_memory", lambda device: round((need + least) / 2 / 0.8))
    rows = measured(group, request, registry)
    assert rows["reference:eager"].status == "skipped"
    assert "of scratch" in rows["reference:eager"].reasons[0]


def test_the_compiled_baseline() -> None:
    registry = load_registry()
    request = OpsRequest(ops=("gelu_tanh",), cache="warm", **QUICK)
    (group,) = list_groups(request, registry, plan_of(registry))
    rows = measured(group, request, registry)
    row = rows["torch:compile"]
    if row.status == "skipped":
        assert "C++ compiler" in row.reasons[0]
    else:
        assert row.status == "measured", row.reasons
        assert (row.rel_error or 0) < 1e-5


def test_a_missing_compiler_is_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    (reason,) = why_not_compile(CPU)
    assert "needs a C++ compiler" in reason


def test_a_truth_does_not_forgive_shapes_and_nans() -> None:
    truth = Truth((torch.ones(2, dtype=torch.float64),), "float64")
    assert truth.error(torch.tensor([1.0, 1.5])) == (0.5, 0.5)
    assert truth.error(torch.ones(3)) == (math.inf, math.inf)
    assert truth.error(torch.tensor([1.0, math.nan])) == (math.inf, math.inf)
    assert Truth(None, "not checked").error(torch.ones(2)) is None
