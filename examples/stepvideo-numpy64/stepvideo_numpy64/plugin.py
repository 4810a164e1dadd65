"""Registers the backend. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepvideo_core.dispatch import Backend, BackendRegistry
from stepvideo_core.ops import OpImpl
from stepvideo_core.plugins import hookimpl


def _why_not() -> list[str]:
    return []


def _load() -> Sequence[OpImpl[Any]]:
    from stepvideo_numpy64 import operators

    return operators.IMPLS


@hookimpl
def stepvideo_register_backends(registry: BackendRegistry) -> None:
    registry.add(
        Backend(
            name="numpy64",
            device_type="cpu",
            why_not=_why_not,
            load=_load,
            rank=None,  # an oracle is used when named, never chosen by `auto`
            version="0.1.0",
            summary="float64 in NumPy: a second opinion on what the operators mean",
        )
    )
