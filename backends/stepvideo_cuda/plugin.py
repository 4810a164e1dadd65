"""Registers the CUDA backend."""

from __future__ import annotations

from stepvideo_core.dispatch import BackendRegistry
from stepvideo_core.plugins import hookimpl
from stepvideo_cuda.backend import cuda_backend


@hookimpl
def stepvideo_register_backends(registry: BackendRegistry) -> None:
    registry.add(cuda_backend())
