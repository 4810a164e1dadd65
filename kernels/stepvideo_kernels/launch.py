"""What every kernel file needs to launch: dtypes, views, device guard, choice of a config."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import triton
import triton.language as tl
from torch import Tensor

from stepvideo_kernels.tuning import ConfigT, active_tuner


def interpreted() -> bool:
    """Whether kernels run in Python on the CPU (TRITON_INTERPRET=1)."""
    return bool(triton.knobs.runtime.interpret)


def wide_type(dtype: torch.dtype) -> tl.dtype:
    """The type that arithmetic is done in: float32, or float64 for float64 tensors."""
    return tl.float64 if dtype == torch.float64 else tl.float32


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """`wide_type` as a torch dtype, for buffers between two kernels."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def wide(x: Tensor) -> Tensor:
    """x in the dtype that arithmetic is done in; for the plain-torch twins."""
    return x.to(wide_dtype(x.dtype))


def rows_of(x: Tensor) -> Tensor:
    """[..., D] as [rows, D]: a view where one row stride describes x (packed heads, gaps between
    elements), a copy where it does not."""
    return x.reshape(-1, x.shape[-1])


def power_of_2(number: int) -> int:
    """The next power of two, which Triton wants of every block."""
    return 1 << max(number - 1, 0).bit_length()


def launch(
    kernel: str,
    bucket: tuple[object, ...],
    on: Tensor,
    run: Callable[[ConfigT], None],
    default: ConfigT,
    candidates: Iterable[ConfigT],
) -> None:
    """Run a kernel with its default config, or with the tuned one while tuning is switched on.

    kernel, bucket: what a tuned config is remembered by, besides the device and the Triton version.
    on: a tensor of the device to launch on; it need not be the current one (`cuda:1`).
    run: launches; it must give the same result for every config and be repeatable.
    """
    with torch.cuda.device_of(on):
        tuner = active_tuner()
        if tuner is None:
            run(default)
        else:
            run(tuner.choose(kernel, bucket, on.device, run, default, candidates))
