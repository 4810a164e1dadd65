"""Choosing implementations: order, reasons, promises, compositions, shadows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from stepvideo_core.dispatch import (
    Backend,
    BackendRegistry,
    DispatchPlan,
    DispatchPolicy,
    OpOverride,
    select_device,
)
from stepvideo_core.errors import (
    BackendUnavailable,
    ContractMismatch,
    InvalidRequest,
    NoImplementation,
)
from stepvideo_core.ops import (
    GATED_RESIDUAL,
    QK_NORM_ROPE,
    RMS_NORM,
    ROPE_3D,
    ModulationSite,
    OpImpl,
    RMSNormSite,
    RopeSite,
    Site,
)
from stepvideo_core.plugins import load_registry

CPU = torch.device("cpu")
NORM = RMSNormSite(name="dit.cross", width=128)
LLM_NORM = RMSNormSite(name="step_llm.norm", width=6144)
ROPE = RopeSite(name="dit.self", num_heads=2, head_dim=128, axes=(64, 32, 32))
BLOCK = ModulationSite(name="dit.block", width=256, affine=True)


def rms(tag: float) -> Any:
    """An RMSNorm that can be told apart: it adds `tag`."""

    def fn(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        return x + tag

    return fn


def registry_with(*backends: Backend) -> BackendRegistry:
    registry = BackendRegistry()
    registry.add(load_registry().get("reference"))
    for backend in backends:
        registry.add(backend)
    return registry


def backend(
    name: str,
    impls: Sequence[OpImpl[Any]],
    *,
    device_type: str = "cpu",
    rank: int | None = 0,
    missing: Sequence[str] = (),
) -> Backend:
    return Backend(
        name=name,
        device_type=device_type,
        why_not=lambda: list(missing),
        load=lambda: impls,
        rank=rank,
    )


def plan(registry: BackendRegistry, **policy: Any) -> DispatchPlan:
    parsed = DispatchPolicy.parse(**policy)
    return DispatchPlan(registry, parsed, device=CPU, dtype=torch.float32)


def narrow(site: Site) -> list[str]:
    assert isinstance(site, RMSNormSite)
    return [f"width {site.width} > 1024"] if site.width > 1024 else []


FAST = OpImpl(op=RMS_NORM, name="fast", fn=rms(1.0), rank=5, why_not=narrow)
SLOW = OpImpl(op=RMS_NORM, name="slow", fn=rms(2.0), rank=1)


def impl_of(chosen: DispatchPlan, op: str = "rms_norm") -> str:
    return next(choice.impl for choice in chosen.choices if choice.op == op)


def test_auto_takes_the_highest_rank_that_accepts() -> None:
    chosen = plan(registry_with(backend("mine", [SLOW, FAST])))
    assert chosen.bind(RMS_NORM, NORM)(torch.zeros(1), torch.ones(1), 0.0) == 1.0
    assert chosen.bind(RMS_NORM, LLM_NORM)(torch.zeros(1), torch.ones(1), 0.0) == 2.0
    first, second = chosen.choices
    assert (first.impl, first.reasons) == ("mine:fast", ())
    assert (second.impl, second.reasons) == ("mine:slow", ("mine:fast: width 6144 > 1024",))


def test_auto_orders_backends_by_rank_and_skips_other_devices() -> None:
    registry = registry_with(
        backend("low", [SLOW], rank=1),
        backend("high", [FAST], rank=2),
        backend("elsewhere", [FAST], rank=9, device_type="meta"),
        backend("oracle", [FAST], rank=None),
    )
    chosen = plan(registry)
    chosen.bind(RMS_NORM, NORM)
    assert impl_of(chosen) == "high:fast"


def test_a_broken_backend_is_a_line_under_auto_and_an_error_when_named() -> None:
    registry = registry_with(backend("mine", [FAST], missing=["no driver 550 or newer"]))
    chosen = plan(registry)
    chosen.bind(RMS_NORM, NORM)
    assert impl_of(chosen) == "reference:eager"
    assert chosen.choices[0].reasons == ("mine: no driver 550 or newer",)
    for policy in ({"backend": "mine"}, {"ops": ["rms_norm=mine"]}, {"shadow": "mine"}):
        with pytest.raises(BackendUnavailable, match="no driver 550"):
            plan(registry, **policy)


def test_a_load_that_raises_disables_the_backend_with_its_reason() -> None:
    def load() -> Sequence[OpImpl[Any]]:
        raise OSError("libvendor.so: cannot open shared object file")

    registry = registry_with(
        Backend(name="mine", device_type="cpu", why_not=lambda: [], load=load, rank=0)
    )
    chosen = plan(registry)
    chosen.bind(RMS_NORM, NORM)
    assert impl_of(chosen) == "reference:eager"
    assert "libvendor.so" in chosen.choices[0].reasons[0]


def test_a_named_backend_falls_back_with_reasons_or_fails() -> None:
    registry = registry_with(backend("mine", [FAST]))
    chosen = plan(registry, backend="mine")
    chosen.bind(RMS_NORM, LLM_NORM)
    assert impl_of(chosen) == "reference:eager"
    assert chosen.choices[0].reasons == ("mine:fast: width 6144 > 1024",)
    strict = plan(registry, backend="mine", allow_fallback=False)
    strict.bind(RMS_NORM, NORM)
    with pytest.raises(NoImplementation, match=r"step_llm\.norm.*without a fallback.*6144 > 1024"):
        strict.bind(RMS_NORM, LLM_NORM)


def test_an_unknown_backend_is_named_with_those_that_exist() -> None:
    with pytest.raises(BackendUnavailable, match=r"no backend 'cudda'; known are .*reference"):
        plan(registry_with(), backend="cudda")


def test_overrides_are_promises_and_the_more_specific_wins() -> None:
    registry = registry_with(backend("mine", [FAST, SLOW]))
    ops = ["rms_norm=reference:eager", "rms_norm@dit.cross=mine:slow"]
    chosen = plan(registry, ops=ops)
    chosen.bind(RMS_NORM, NORM)
    chosen.bind(RMS_NORM, LLM_NORM)
    assert [choice.impl for choice in chosen.choices] == ["mine:slow", "reference:eager"]
    chosen.freeze()


def test_a_promise_that_cannot_be_kept_says_what_would_do() -> None:
    registry = registry_with(backend("mine", [FAST, SLOW]))
    broken = plan(registry, ops=["rms_norm=mine:fast"])
    with pytest.raises(NoImplementation) as caught:
        broken.bind(RMS_NORM, LLM_NORM)
    message = str(caught.value)
    assert "width 6144 > 1024" in message
    assert "mine:slow" in message and "reference:eager" in message
    absent = plan(registry, ops=["rms_norm=mine:none"])
    with pytest.raises(NoImplementation, match="has no rms_norm:none"):
        absent.bind(RMS_NORM, NORM)


def test_an_override_that_meets_nothing_is_an_error() -> None:
    chosen = plan(registry_with(), ops=["rms_norm@dit.crss=reference"])
    chosen.bind(RMS_NORM, NORM)
    with pytest.raises(InvalidRequest, match=r"rms_norm@dit\.crss=reference.*at dit\.cross"):
        chosen.freeze()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("attention", "is not OP"),
        ("attention=", "is not OP"),
        ("attentoin=reference", "no operator 'attentoin'"),
        ("attention=reference:sdpa:x", "is not OP"),
    ],
)
def test_malformed_overrides(text: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        OpOverride.parse(text)


def test_two_overrides_for_one_place() -> None:
    with pytest.raises(InvalidRequest, match="claim the same place"):
        DispatchPolicy.parse(ops=["attention=reference", "attention=reference:sdpa"])


def test_overrides_read_back_as_written() -> None:
    for text in ("attention=cuda", "attention@dit.self=cuda:flash3"):
        assert str(OpOverride.parse(text)) == text


def test_a_fusion_is_composed_from_a_backends_parts() -> None:
    """A backend with the parts but not the fusion serves the fused call site."""
    registry = registry_with(backend("mine", [SLOW]))
    chosen = plan(registry, backend="mine")
    fused = chosen.bind(QK_NORM_ROPE, ROPE)
    impls = {choice.op: choice.impl for choice in chosen.choices}
    assert impls["qk_norm_rope"] == "composed"
    assert impls["rms_norm"] == "mine:slow"
    assert impls["rope_3d"] == "reference:eager"
    qkv = torch.zeros(1, 1, 2, 384)
    cos, sin = torch.ones(1, 128), torch.zeros(1, 128)
    q, _, v = fused(qkv, torch.ones(128), torch.ones(128), 1e-6, cos, sin, (64, 32, 32))
    assert (q == 2.0).all() and (v == 0.0).all()


def test_the_composition_equals_the_fusion() -> None:
    torch.manual_seed(0)
    qkv, weights = torch.randn(1, 4, 2, 384), (torch.randn(128), torch.randn(128))
    angles = torch.randn(4, 128)
    args = (qkv, *weights, 1e-6, angles.cos(), angles.sin(), (64, 32, 32))
    fused = plan(registry_with()).bind(QK_NORM_ROPE, ROPE)
    composed = plan(registry_with(), ops=["qk_norm_rope=composed"]).bind(QK_NORM_ROPE, ROPE)
    assert fused is not composed
    for left, right in zip(fused(*args), composed(*args), strict=True):
        torch.testing.assert_close(left, right)


def test_only_fusions_can_be_composed() -> None:
    chosen = plan(registry_with(), ops=["rope_3d=composed"])
    with pytest.raises(NoImplementation, match="rope_3d is not a fused operator"):
        chosen.bind(ROPE_3D, ROPE)


def test_a_frozen_plan_gives_what_it_chose_and_nothing_else() -> None:
    chosen = plan(registry_with())
    first = chosen.bind(RMS_NORM, NORM)
    chosen.freeze()
    assert chosen.bind(RMS_NORM, NORM) is first
    with pytest.raises(NoImplementation, match="not in the plan when it was frozen"):
        chosen.bind(RMS_NORM, LLM_NORM)


def test_shadow_measures_the_difference_and_does_not_change_the_result() -> None:
    registry = registry_with(backend("mine", [SLOW]))
    chosen = plan(registry, backend="reference", shadow="mine")
    norm = chosen.bind(RMS_NORM, NORM)
    x = torch.full((3, 128), 2.0)
    plain = plan(registry).registry.implementations("reference")
    expected = next(i for i in plain if i.op is RMS_NORM).fn(x, torch.ones(128), 0.0)
    assert torch.equal(norm(x, torch.ones(128), 0.0), expected)
    (record,) = chosen.shadow.records
    assert (record.impl, record.shadow, record.calls) == ("reference:eager", "mine:slow", 1)
    assert record.max_abs == pytest.approx(3.0)  # 1 after the norm, 4 from the shadow
    assert record.max_rel == pytest.approx(0.75)
    norm(x * float("nan"), torch.ones(128), 0.0)
    assert record.calls == 2
    assert chosen.as_json()[0]["shadow"] == "mine:slow"
    gate = chosen.bind(GATED_RESIDUAL, BLOCK)
    assert "no shadow: mine: has no gated_residual" in chosen.choices[-1].reasons
    assert gate.__name__ == "eager_gated_residual"


def test_json_merges_equal_decisions() -> None:
    chosen = plan(registry_with())
    for width in (64, 128, 256):
        chosen.bind(RMS_NORM, RMSNormSite(name="dit.cross", width=width))
    assert chosen.as_json() == [
        {"op": "rms_norm", "site": "dit.cross", "impl": "reference:eager", "reasons": []}
    ]


@pytest.mark.parametrize(
    ("impls", "message"),
    [
        ([OpImpl(op=RMS_NORM, name="x", fn=lambda x, eps, weight: x)], r"takes \(x, eps, weight\)"),
        ([OpImpl(op=RMS_NORM, name="x", fn=lambda x, **rest: x)], "names and order must be"),
        ([OpImpl(op=RMS_NORM, name="Bad Name", fn=rms(0.0))], "lower-case identifiers"),
        ([SLOW, SLOW], "implements 'rms_norm' twice"),
    ],
)
def test_an_implementation_that_differs_from_its_contract_is_refused(
    impls: list[OpImpl[Any]], message: str
) -> None:
    registry = registry_with(backend("mine", impls))
    assert registry.implementations("mine") == ()
    (reason,) = registry.why_not("mine")
    assert re.search(message, reason), reason


@pytest.mark.parametrize("name", ["auto", "composed", "Mine", "my-own", ""])
def test_unusable_backend_names(name: str) -> None:
    with pytest.raises(ContractMismatch, match="is not usable"):
        BackendRegistry().add(backend(name, []))


def test_a_backend_registers_once() -> None:
    registry = registry_with(backend("mine", []))
    with pytest.raises(ContractMismatch, match="registered twice"):
        registry.add(backend("mine", []))


def test_devices() -> None:
    registry = registry_with(backend("mine", [], device_type="xpu"))
    assert select_device(registry, DispatchPolicy()) == CPU
    assert select_device(registry, DispatchPolicy(backend="reference")) == CPU
    assert select_device(registry, DispatchPolicy(), "cpu") == CPU
    for requested in ("cuda:7", "xpu"):
        with pytest.raises(InvalidRequest, match="is not here: torch sees"):
            select_device(registry, DispatchPolicy(), requested)
    with pytest.raises(InvalidRequest, match="is not a device that this torch knows"):
        select_device(registry, DispatchPolicy(), "gpu0")
    with pytest.raises(InvalidRequest, match="is not here"):
        select_device(registry, DispatchPolicy(backend="mine"))


def test_a_bound_callable_compiles_whole() -> None:
    """No hook, registry or look-up is left in `forward`: torch captures it in one graph."""
    norm = plan(registry_with()).bind(RMS_NORM, NORM)

    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(128))
            self.norm = norm

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(x, self.weight, 1e-6) * 2

    module = Module()
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    x = torch.randn(3, 128)
    torch.testing.assert_close(compiled(x), module(x))
    assert set(module.state_dict()) == {"weight"}
