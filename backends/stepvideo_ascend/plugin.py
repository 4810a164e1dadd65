"""Registers the Ascend backend."""

from __future__ import annotations

from stepvideo_ascend.backend import npu_backend
from stepvideo_core.dispatch import BackendRegistry
from stepvideo_core.plugins import hookimpl


@hookimpl
def stepvideo_register_backends(registry: BackendRegistry) -> None:
    registry.add(npu_backend())
