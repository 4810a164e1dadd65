"""Key lengths reach a library as views of the keys, never as a mask."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from torch import Tensor

from stepvideo_core.dispatch import Library
from stepvideo_cuda.attention import by_length, flash_core
from stepvideo_kernels.attention import attention_twin


def _fake_flash(calls: list[tuple[Tensor, Tensor]], returns_tuple: bool) -> Library:
    def flash_attn_func(
        q: Tensor, k: Tensor, v: Tensor, softmax_scale: float, causal: bool
    ) -> Tensor | tuple[Tensor, None]:
        calls.append((q, k))
        out = attention_twin(q, k, v, softmax_scale, causal, None, None)
        return (out, None) if returns_tuple else out

    module = ModuleType("flash_attn")
    module.flash_attn_func = flash_attn_func  # type: ignore[attr-defined]
    return Library(name="flash_attn", imported=module)


@pytest.mark.parametrize("returns_tuple", [False, True])
@pytest.mark.parametrize(
    ("lengths", "key_shapes"),
    [(None, [9, 9]), ((5, 5), [5, 5]), ((9, 2), [9, 2])],
)
def test_lengths_become_views(
    lengths: tuple[int, ...] | None, key_shapes: list[int], returns_tuple: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, size, 3, 16, generator=generator) for size in (4, 9, 9))
    calls: list[tuple[Tensor, Tensor]] = []
    attend = by_length(flash_core(_fake_flash(calls, returns_tuple)))
    out = attend(q, k, v, 0.25, False, lengths, None)
    expected = attention_twin(q, k, v, 0.25, False, lengths, None)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)
    seen = [keys.shape[1] for _, keys in calls for _ in range(keys.shape[0])]
    assert seen == key_shapes
    storage = k.untyped_storage().data_ptr()
    assert all(keys.untyped_storage().data_ptr() == storage for _, keys in calls)
    assert len(calls) == (2 if lengths == (9, 2) else 1)


def test_a_gap_between_channels_is_closed_before_a_library_sees_it() -> None:
    calls: list[tuple[Tensor, Tensor]] = []
    q, k, v = (torch.randn(1, 4, 2, 32)[..., ::2] for _ in range(3))
    by_length(flash_core(_fake_flash(calls, False)))(q, k, v, 0.25, True, None, None)
    assert calls[0][0].stride(-1) == calls[0][1].stride(-1) == 1
