"""The analytic backward pass of GroupNorm + SiLU, against torch and against differences."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stepvideo_reference.norm import eager_group_norm_silu
from stepvideo_training import group_norm
from stepvideo_training.group_norm import trainable_group_norm_silu


@pytest.mark.parametrize("per_frame", [True, False])
@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize("front", [0, 2])
def test_gradients_against_differences(
    per_frame: bool, silu: bool, front: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_norm, "_CACHED_ELEMENTS", 60)  # several pieces
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 3, 2, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    weight, bias = (
        torch.randn(4, generator=generator, dtype=torch.float64, requires_grad=True)
        for _ in range(2)
    )

    def norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return trainable_group_norm_silu(x, weight, bias, 2, 1e-5, per_frame, silu, front)

    assert torch.autograd.gradcheck(norm, (x, weight, bias))


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(*(st.integers(1, 5) for _ in range(4))),
    channels=st.sampled_from([32, 64]),
    flags=st.tuples(st.booleans(), st.booleans()),
    front=st.integers(0, 2),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    contiguous=st.booleans(),
)
def test_values_and_gradients_against_the_reference(
    shape: tuple[int, int, int, int],
    channels: int,
    flags: tuple[bool, bool],
    front: int,
    dtype: torch.dtype,
    contiguous: bool,
) -> None:
    batch, frames, height, width = shape
    generator = torch.Generator().manual_seed(sum(shape))
    x = torch.randn(batch, channels, frames, height + 1, width + 1, generator=generator).to(dtype)
    if contiguous:
        x = x.contiguous(memory_format=torch.channels_last_3d)
    weight, bias = (torch.randn(channels, generator=generator) for _ in range(2))
    found, wanted = [], []
    for fn, results in ((trainable_group_norm_silu, found), (eager_group_norm_silu, wanted)):
        inputs = [t.clone().requires_grad_() for t in (x, weight, bias)]
        out = fn(*inputs, 32, 1e-5, *flags, front)
        assert out.dtype == dtype
        ramp = torch.linspace(-1, 1, out.numel()).view(out.shape).to(dtype)
        results += [out, *torch.autograd.grad(out, inputs, ramp)]
    tolerance = 2e-4 if dtype == torch.float32 else 3e-2
    for mine, theirs in zip(found, wanted, strict=True):
        scale = theirs.float().abs().max().clamp_min(1e-2)
        assert (mine.float() - theirs.float()).abs().max() / scale < tolerance
