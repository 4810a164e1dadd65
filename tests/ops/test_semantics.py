"""What the operators mean, as properties of the reference."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from stepvideo_core.models.embeddings import rope_tables
from stepvideo_core.plugins import load_registry
from stepvideo_core.testing.parity import eager_of

DOUBLE = torch.float64
AXES = (64, 32, 32)


def op(name: str) -> Any:
    return eager_of(load_registry(), name).fn


def implementations(name: str) -> list[Any]:
    registry = load_registry()
    return [
        pytest.param(impl.fn, id=impl.name)
        for impl in registry.implementations("reference")
        if impl.op.name == name
    ]


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


@settings(max_examples=25, deadline=None)
@given(batch=st.integers(1, 3), tokens=st.integers(1, 9), width=st.integers(2, 65))
def test_zero_modulation_is_layer_norm(batch: int, tokens: int, width: int) -> None:
    x = randn(batch, tokens, width)
    zero = torch.zeros(batch, width, dtype=DOUBLE)
    for modulate in implementations("adaln_modulate"):
        out = modulate.values[0](x, None, None, 1e-6, zero, zero)
        torch.testing.assert_close(out, F.layer_norm(x, (width,), eps=1e-6))


@settings(max_examples=25, deadline=None)
@given(
    grid=st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)),
    heads=st.integers(1, 3),
)
def test_rope_keeps_norms(grid: tuple[int, int, int], heads: int) -> None:
    x = randn(1, math.prod(grid), heads, 128)
    tables = rope_tables(grid, AXES, dtype=DOUBLE, device=torch.device("cpu"))
    out = op("rope_3d")(x, tables.cos_SD, tables.sin_SD, AXES)
    torch.testing.assert_close(out.norm(dim=-1), x.norm(dim=-1))


@settings(max_examples=25, deadline=None)
@given(
    first=st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)),
    second=st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)),
    shift=st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4)),
)
def test_rope_depends_on_relative_position(
    first: tuple[int, int, int], second: tuple[int, int, int], shift: tuple[int, int, int]
) -> None:
    """Moving a query and a key by the same (frames, rows, columns) keeps their product."""
    grid = (8, 8, 8)
    tables = rope_tables(grid, AXES, dtype=DOUBLE, device=torch.device("cpu"))

    def rotated(x: torch.Tensor, at: tuple[int, int, int]) -> torch.Tensor:
        row = (at[0] * 8 + at[1]) * 8 + at[2]
        pick = slice(row, row + 1)
        return op("rope_3d")(x, tables.cos_SD[pick], tables.sin_SD[pick], AXES)

    q, k = randn(1, 1, 1, 128), randn(1, 1, 1, 128, seed=1)
    moved = [tuple(a + b for a, b in zip(place, shift, strict=True)) for place in (first, second)]
    here = (rotated(q, first) * rotated(k, second)).sum()
    there = (rotated(q, moved[0]) * rotated(k, moved[1])).sum()
    torch.testing.assert_close(here, there)


@pytest.mark.parametrize("attend", implementations("attention"))
def test_attention_of_equal_keys_is_the_mean_of_the_values(attend: Any) -> None:
    q, v = randn(1, 5, 2, 16), randn(1, 7, 2, 16)
    k = torch.ones_like(v)
    out = attend(q, k, v, 0.25, False, None, None)
    torch.testing.assert_close(out, v.mean(dim=1, keepdim=True).expand_as(out))


@pytest.mark.parametrize("attend", implementations("attention"))
def test_causal_attention_ignores_the_future(attend: Any) -> None:
    q, k, v = (randn(1, 9, 1, 32, seed=seed) for seed in range(3))
    changed = [x.clone() for x in (k, v)]
    for x in changed:
        x[:, 5:] = 3.0
    before = attend(q, k, v, 0.2, True, None, None)
    after = attend(q, *changed, 0.2, True, None, None)
    torch.testing.assert_close(after[:, :5], before[:, :5])
    assert not torch.allclose(after[:, 5:], before[:, 5:])
    torch.testing.assert_close(before[:, 0], v[:, 0])


@pytest.mark.parametrize("attend", implementations("attention"))
@settings(max_examples=20, deadline=None)
@given(lengths=st.lists(st.integers(1, 11), min_size=1, max_size=3))
def test_key_lengths_equal_cutting_the_keys(attend: Any, lengths: list[int]) -> None:
    batch = len(lengths)
    q, k, v = randn(batch, 4, 2, 16), randn(batch, 11, 2, 16, seed=1), randn(batch, 11, 2, 16)
    out = attend(q, k, v, 0.25, False, tuple(lengths), None)
    for row, length in enumerate(lengths):
        alone = attend(
            q[row : row + 1],
            k[row : row + 1, :length],
            v[row : row + 1, :length],
            0.25,
            False,
            None,
            None,
        )
        torch.testing.assert_close(out[row : row + 1], alone)


@pytest.mark.parametrize("attend", implementations("attention"))
def test_the_distance_bias_prefers_near_keys(attend: Any) -> None:
    """With equal logits the weights are softmax(-slope sqrt(distance)), head by head."""
    slopes = torch.tensor([0.0, 0.5], dtype=DOUBLE)
    q, k = torch.zeros(1, 6, 2, 8, dtype=DOUBLE), torch.zeros(1, 6, 2, 8, dtype=DOUBLE)
    v = torch.eye(6, 8, dtype=DOUBLE)[None, :, None].expand(1, 6, 2, 8)
    out = attend(q, k, v, 1.0, True, None, slopes)
    distance = torch.arange(5, -1, -1, dtype=DOUBLE)
    for head, slope in enumerate(slopes):
        weights = torch.softmax(-slope * distance.sqrt(), dim=0)
        torch.testing.assert_close(out[0, 5, head, :6], weights)


@pytest.mark.parametrize("attend", implementations("attention"))
def test_grouped_heads_read_their_own_keys(attend: Any) -> None:
    q, k, v = randn(1, 3, 6, 16), randn(1, 5, 2, 16, seed=1), randn(1, 5, 2, 16, seed=2)
    repeated = (x.repeat_interleave(3, dim=2) for x in (k, v))
    expected = attend(q, *repeated, 0.25, False, None, None)
    torch.testing.assert_close(attend(q, k, v, 0.25, False, None, None), expected)


@pytest.mark.parametrize("norm", implementations("group_norm_silu"))
def test_group_norm_is_torchs(norm: Any) -> None:
    x, weight, bias = randn(2, 64, 3, 4, 5), randn(64), randn(64, seed=1)
    volume = norm(x, weight, bias, 32, 1e-5, False, False, 0)
    torch.testing.assert_close(volume, F.group_norm(x, 32, weight, bias, 1e-5))
    frames = norm(x, weight, bias, 32, 1e-5, True, True, 2)
    assert frames.shape == (2, 64, 5, 4, 5)
    assert not frames[:, :, :2].any(), "the front frames are zeros after the SiLU"
    one = F.silu(F.group_norm(x[:, :, 1], 32, weight, bias, 1e-5))
    torch.testing.assert_close(frames[:, :, 3], one)


@settings(max_examples=20, deadline=None)
@given(
    channels=st.integers(1, 3),
    frames=st.integers(1, 3),
    size=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    factor=st.sampled_from([1, 2]),
)
def test_shuffle_undoes_unshuffle(
    channels: int, frames: int, size: tuple[int, int], factor: int
) -> None:
    length = frames * factor - (factor - 1)
    x = randn(1, channels, length, size[0] * factor, size[1] * factor)
    packed = op("pixel_unshuffle_add")(x, torch.zeros_like(x), factor)
    assert packed.shape[1] == channels * factor**3
    restored = op("pixel_shuffle_add")(packed, torch.zeros_like(packed), factor)
    torch.testing.assert_close(restored, x)


def test_shortcuts_average_and_repeat() -> None:
    """A branch of zeros shows the shortcut alone."""
    skip = randn(1, 8, 3, 2, 2)
    down = op("pixel_unshuffle_add")(torch.zeros(1, 2, 3, 2, 2, dtype=DOUBLE), skip, 1)
    torch.testing.assert_close(down[:, 1], skip[:, 4:8].mean(dim=1))
    up = op("pixel_shuffle_add")(torch.zeros(1, 16, 3, 2, 2, dtype=DOUBLE), skip, 1)
    torch.testing.assert_close(up[:, 5], skip[:, 2])


@pytest.mark.parametrize("convolve", implementations("conv2d"))
def test_downsampling_pads_right_and_bottom_only(convolve: Any) -> None:
    x = torch.ones(1, 1, 4, 4, dtype=DOUBLE)
    weight, bias = torch.ones(1, 1, 3, 3, dtype=DOUBLE), torch.zeros(1, dtype=DOUBLE)
    out = convolve(x, weight, bias, 2, (0, 1, 0, 1))
    assert out.flatten().tolist() == [9.0, 6.0, 6.0, 4.0]
