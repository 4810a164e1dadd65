"""Registers the reference backend."""

from __future__ import annotations

from stepvideo_core.dispatch import BackendRegistry
from stepvideo_core.plugins import hookimpl
from stepvideo_reference.backend import reference_backend


@hookimpl
def stepvideo_register_backends(registry: BackendRegistry) -> None:
    registry.add(reference_backend())
