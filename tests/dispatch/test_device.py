"""Which device a run gets when torch knows a device type only after its backend has loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from stepvideo_core.dispatch import (
    Backend,
    BackendRegistry,
    DispatchPlan,
    DispatchPolicy,
    select_device,
)
from stepvideo_core.errors import BackendUnavailable, InvalidRequest
from stepvideo_core.ops import RMS_NORM, OpImpl, RMSNormSite

# A device type that this torch can name but has no library for.
DEVICE = "hpu"
NORM = RMSNormSite(name="dit.cross", width=128)
SENTENCE = "the library sees no device: connect one"


def _norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return x


def _registry(load: Callable[[], Sequence[OpImpl[Any]]], **options: Any) -> BackendRegistry:
    registry = BackendRegistry()
    registry.add(Backend(name="mine", why_not=list, load=load, **options))
    return registry


def _no_device() -> Sequence[OpImpl[Any]]:
    raise BackendUnavailable(SENTENCE)


def test_a_library_without_a_device_is_a_sentence_without_a_class_name() -> None:
    registry = _registry(_no_device, device_type=DEVICE)
    assert registry.why_not("mine") == [SENTENCE]
    with pytest.raises(BackendUnavailable, match=SENTENCE):
        select_device(registry, DispatchPolicy(backend="mine"))
    assert select_device(registry, DispatchPolicy()) == torch.device("cpu")


def test_a_named_device_that_is_not_there_says_why_its_backend_is_not() -> None:
    registry = _registry(_no_device, device_type=DEVICE)
    with pytest.raises(InvalidRequest, match=f"backend 'mine': {SENTENCE}"):
        select_device(registry, DispatchPolicy(), f"{DEVICE}:1")
    unknown = _registry(_no_device, device_type="nosuch")
    with pytest.raises(InvalidRequest, match=f"not a device that this torch knows.*{SENTENCE}"):
        select_device(unknown, DispatchPolicy(), "nosuch:0")


def test_a_backend_is_loaded_before_torch_is_asked() -> None:
    loaded = []

    def load() -> Sequence[OpImpl[Any]]:
        loaded.append(True)
        return [OpImpl(op=RMS_NORM, name="norm", fn=_norm)]

    registry = _registry(load, device_type=DEVICE)
    with pytest.raises(InvalidRequest, match="is not here: torch sees"):
        select_device(registry, DispatchPolicy(), f"{DEVICE}:1")
    assert loaded == [True]


def test_the_plan_says_what_its_backends_have_set() -> None:
    registry = _registry(
        lambda: [OpImpl(op=RMS_NORM, name="norm", fn=_norm)],
        device_type="cpu",
        settings=lambda: ["products full: no shortened mantissas"],
    )
    plan = DispatchPlan(registry, DispatchPolicy(), device=torch.device("cpu"), dtype=torch.float32)
    assert plan.settings() == {}
    plan.bind(RMS_NORM, NORM)
    assert plan.settings() == {"mine": ["products full: no shortened mantissas"]}
