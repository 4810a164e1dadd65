"""The reference backend. torch is its only library, so it works everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepvideo_core import __version__
from stepvideo_core.dispatch import ANY_DEVICE, Backend
from stepvideo_core.ops import OpImpl


def _why_not() -> list[str]:
    return []


def _load() -> Sequence[OpImpl[Any]]:
    from stepvideo_reference import attention, convolution, linear, modulation, norm, rope

    families = (linear, attention, norm, rope, modulation, convolution)
    return [impl for family in families for impl in family.IMPLS]


def reference_backend() -> Backend:
    """Plain torch; stands behind every other backend."""
    return Backend(
        name="reference",
        device_type=ANY_DEVICE,
        why_not=_why_not,
        load=_load,
        fallback=True,
        version=__version__,
        summary="plain torch on any device; `eager` is the meaning of each operator",
    )
