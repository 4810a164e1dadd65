"""Addresses beyond 2^31 elements: the kernels are run with huge strides, their loads recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import triton.language as tl
from triton.runtime import interpreter

from stepvideo_kernels.adaln import _adaln_modulate_kernel, _gated_residual_kernel
from stepvideo_kernels.attention import _attention_kernel
from stepvideo_kernels.gelu import _gelu_tanh_kernel
from stepvideo_kernels.group_norm import _moments_kernel
from stepvideo_kernels.pixel_shuffle import _pixel_shuffle_kernel
from stepvideo_kernels.qk_norm_rope import _qk_norm_rope_kernel
from stepvideo_kernels.rms_norm import _rms_norm_kernel

# Fits 32 bits, so Triton passes it as an int32; twice it does not.
HUGE = 2**31 - 16
BYTES = 4


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Addresses of all unmasked loads; nothing is read or written."""
    addresses: list[Any] = []
    builder = interpreter.interpreter_builder

    def load(ptrs: Any, mask: Any, other: Any, *rest: Any) -> Any:
        element = ptrs.get_element_ty()
        addresses.append(ptrs.data[np.broadcast_to(mask.data, ptrs.data.shape)])
        zeros = np.zeros(ptrs.data.shape, dtype=interpreter._get_np_dtype(element))
        return interpreter.TensorHandle(zeros, element)

    monkeypatch.setattr(builder, "create_masked_load", load)
    monkeypatch.setattr(builder, "create_masked_store", lambda *rest: None)
    yield addresses


def _farthest(addresses: list[Any], base: torch.Tensor) -> int:
    """The largest distance of a load from the base, in elements."""
    return max(int(block.max()) - base.data_ptr() for block in addresses if block.size) // BYTES


X = torch.zeros(64)
P = torch.zeros(64)


def _rms_norm() -> None:
    _rms_norm_kernel[1,](X, P, P, 4, HUGE, 1, EPS=1e-6, WIDTH=16, ROWS=4, BLOCK=16, WIDE=tl.float32)


def _qk_norm_rope() -> None:
    _qk_norm_rope_kernel[4, 1](
        X, P, P, P, P, P, P, 4, 16, HUGE, 12, 1,
        EPS=1e-6, NUM_HEADS=1, HEAD_DIM=4, A0=2, A1=1, A2=1, RUN=1, HEADS=1, BLOCK=4,
        WIDE=tl.float32,
    )  # fmt: skip


def _adaln() -> None:
    _adaln_modulate_kernel[1, 1](
        X, P, P, P, P, P, 4, 16, HUGE, 1, 16, 16,
        EPS=1e-6, AFFINE=True, WIDTH=16, ROWS=4, BLOCK=16, WIDE=tl.float32,
    )  # fmt: skip


def _gated() -> None:
    _gated_residual_kernel[1, 1](
        X, P, P, P, 4, 16, HUGE, 1, 16, 16, 1, 16, WIDTH=16, ROWS=4, BLOCK=16, WIDE=tl.float32
    )


def _group_norm() -> None:
    _moments_kernel[1, 4](
        X, P, P, 4, 8, 8, 0, 1, HUGE, 16, CHANNELS=16, PIXELS=8, BLOCK=16, WIDE=tl.float32
    )


def _group_norm_pixels() -> None:
    _moments_kernel[1, 1](
        X, P, P, 1, 4, 4, 0, 1, 16, HUGE, CHANNELS=16, PIXELS=1, BLOCK=16, WIDE=tl.float32
    )


def _pixel_shuffle() -> None:
    _pixel_shuffle_kernel[1, 1](
        X, P, P, 4, 1, 1, 0, 1, HUGE, 16, 16, 0, 1, 16, 16, 16,
        FACTOR=1, REPEAT=1, CHANNELS=16, PIXELS=4, BLOCK=16, WIDE=tl.float32,
    )  # fmt: skip


def _attention() -> None:
    _attention_kernel[1, 1](
        X, P, P, P, P, P, 4, 4, 1, 1, 1.0, 0, HUGE, 16, 0, 16, 16, 0, 16, 16,
        CAUSAL=False, LENGTHS=False, SLOPES=False, HEAD_DIM=16, QUERIES=16, KEYS=16, CHUNK=16,
        VALUES=16, UPCAST=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    "run",
    [
        _rms_norm,
        _qk_norm_rope,
        _adaln,
        _gated,
        _group_norm,
        _group_norm_pixels,
        _pixel_shuffle,
        _attention,
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_fourth_row_lies_three_strides_away(run: Callable[[], None], loads: list[Any]) -> None:
    run()
    distance = _farthest(loads, X)
    assert 3 * HUGE <= distance < 3 * HUGE + 256


def test_flat_index_beyond_32_bits(loads: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    builder = interpreter.interpreter_builder
    set_index, set_size = builder.set_grid_idx, builder.set_grid_dim
    late = 2**21  # this program starts at element 2^33
    monkeypatch.setattr(builder, "set_grid_idx", lambda x, y, z: set_index(x + late, y, z))
    monkeypatch.setattr(builder, "set_grid_dim", lambda x, y, z: set_size(x + late, y, z))
    _gelu_tanh_kernel[1,](X, P, 2**33 + 100, 1, BLOCK=4096, WIDE=tl.float32)
    assert _farthest(loads, X) == 2**33 + 99
