"""Tuning: off by default, measured once, remembered across processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from triton.runtime.errors import OutOfResources

from stepvideo_kernels import attention, disable_tuning, enable_tuning, group_norm, rms_norm
from stepvideo_kernels import tuning as tuning_module
from stepvideo_kernels.attention import attention_twin
from stepvideo_kernels.group_norm import group_norm_silu_twin
from stepvideo_kernels.tuning import Tuner

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Size:
    size: int


class Clock:
    """A timer by which config of size 3 is the fastest; counts what it measured."""

    def __init__(self) -> None:
        self.measured: list[int] = []
        self.running = 0

    def run(self, config: Size) -> None:
        self.running = config.size

    def __call__(self, call: Callable[[], None]) -> float:
        call()
        self.measured.append(self.running)
        return abs(self.running - 3)


def _choose(tuner: Tuner, clock: Clock, bucket: int, sizes: tuple[int, ...] = (2, 3, 4)) -> Size:
    return tuner.choose("kernel", (bucket,), CPU, clock.run, Size(1), map(Size, sizes))


def test_the_fastest_is_measured_once_and_remembered_on_disk(tmp_path: Path) -> None:
    path, clock = tmp_path / "deep" / "kernels.json", Clock()
    tuner = Tuner(path, clock)
    assert _choose(tuner, clock, 8) == Size(3)
    assert clock.measured == [1, 2, 3, 4]
    assert _choose(tuner, clock, 8) == Size(3)
    assert _choose(Tuner(path, clock), clock, 8) == Size(3)
    assert clock.measured == [1, 2, 3, 4]
    assert _choose(tuner, clock, 16) == Size(3)
    assert len(clock.measured) == 8
    (first, second) = json.loads(path.read_text())
    assert first.startswith("cpu|triton ") and first.endswith("|kernel|16")
    assert second.endswith("|kernel|8")
    assert [file.name for file in path.parent.iterdir()] == ["kernels.json"]


def test_two_tuners_on_one_file_keep_each_other_s_entries(tmp_path: Path) -> None:
    path, clock = tmp_path / "kernels.json", Clock()
    one, two = Tuner(path, clock), Tuner(path, clock)
    _choose(one, clock, 1)
    _choose(two, clock, 2)
    assert len(json.loads(path.read_text())) == 2


def test_a_remembered_config_that_is_no_candidate_any_more_is_measured_again(
    tmp_path: Path,
) -> None:
    path, clock = tmp_path / "kernels.json", Clock()
    _choose(Tuner(path, clock), clock, 1)
    clock.measured.clear()
    assert _choose(Tuner(path, clock), clock, 1, sizes=(2, 5)) == Size(2)
    assert clock.measured == [1, 2, 5]


def test_a_broken_file_is_said_and_replaced(tmp_path: Path) -> None:
    path, clock = tmp_path / "kernels.json", Clock()
    path.write_text("{half")
    with pytest.warns(UserWarning, match="unreadable"):
        tuner = Tuner(path, clock)
    with pytest.warns(UserWarning, match="unreadable"):
        _choose(tuner, clock, 1)
    assert len(json.loads(path.read_text())) == 1


def test_a_candidate_that_does_not_fit_is_out_of_the_race(tmp_path: Path) -> None:
    clock = Clock()

    def timer(call: Callable[[], None]) -> float:
        call()
        if clock.running == 3:
            raise OutOfResources(120_000, 101_376, "shared memory")
        return abs(clock.running - 3)

    tuner = Tuner(tmp_path / "kernels.json", timer)
    assert _choose(tuner, clock, 1) == Size(2)
    with pytest.raises(OutOfResources):
        tuner.choose("kernel", (2,), CPU, clock.run, Size(3), [Size(4)])


def test_off_by_default_and_switched_by_a_call(tmp_path: Path) -> None:
    x, weight = torch.randn(3, 16), torch.ones(16)
    assert tuning_module.active_tuner() is None
    path = tmp_path / "kernels.json"
    enable_tuning(path, timer=lambda call: call() or 1.0)
    try:
        tuned = rms_norm.triton_rms_norm(x, weight, 1e-6)
    finally:
        disable_tuning()
    assert "|rms_norm|torch.float32|16|4" in path.read_text()
    assert tuning_module.active_tuner() is None
    torch.testing.assert_close(tuned, rms_norm.triton_rms_norm(x, weight, 1e-6))


@pytest.mark.parametrize(
    "change",
    [{"queries": 16, "keys": 16}, {"chunk": 16, "values": 16}, {"chunk": 32, "values": 16}],
    ids=str,
)
@pytest.mark.parametrize("bias", [False, True])
def test_attention_is_the_same_for_any_tiling(
    change: dict[str, int], bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(1)
    q = torch.randn(1, 37, 4, 40, generator=generator)
    k, v = (torch.randn(1, 37, 2, 40, generator=generator) for _ in range(2))
    slopes = torch.tensor([0.1, 0.2, 0.3, 0.4]) if bias else None
    config = replace(attention.default_config(40, 4), **change)
    monkeypatch.setattr(attention, "default_config", lambda *_: config)
    out = attention.triton_attention(q, k, v, 0.2, True, None, slopes)
    expected = attention_twin(q, k, v, 0.2, True, None, slopes)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("elements, tiles", [(256, 1), (256, 3), (2048, 32)])
@pytest.mark.parametrize("per_frame", [False, True])
def test_group_norm_is_the_same_for_any_split(
    elements: int, tiles: int, per_frame: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(1, 64, 2, 5, 7, generator=generator) + 10
    weight, bias = torch.randn(2, 64, generator=generator)
    config = group_norm.GroupNormConfig(elements=elements, tiles=tiles, num_warps=4)
    monkeypatch.setattr(group_norm, "default_config", lambda *_: config)
    arguments = (x, weight, bias, 32, 1e-5, per_frame, True, 1)
    out = group_norm.triton_group_norm_silu(*arguments)
    expected = group_norm_silu_twin(*(a.double() if a is x else a for a in arguments))
    torch.testing.assert_close(out.double(), expected, rtol=1e-4, atol=1e-5)
