"""Loads backend plugins one by one, each on its own risk."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points

import pluggy

from stepvideo_core.dispatch.registry import BackendRegistry
from stepvideo_core.plugins import hookspecs
from stepvideo_core.plugins.markers import ENTRY_POINT_GROUP, PROJECT


def build_registry(plugins: Iterable[EntryPoint]) -> BackendRegistry:
    """A registry with the backends of the given entry points.

    pluggy's own loader stops at the first plugin that cannot be imported, so each is loaded,
    checked and called alone; what went wrong is kept in `registry.failures`.
    """
    registry = BackendRegistry()
    for entry_point in sorted(plugins, key=lambda entry_point: entry_point.name):
        manager = pluggy.PluginManager(PROJECT)
        manager.add_hookspecs(hookspecs)
        try:
            name = manager.register(entry_point.load(), name=entry_point.name)
            manager.check_pending()  # a misspelt hook would be silent otherwise
            if name is None or not manager.hook.stepvideo_register_backends.get_hookimpls():
                raise AttributeError("it implements no hook stepvideo_register_backends")
            manager.hook.stepvideo_register_backends(registry=registry)
        # Third-party code may fail in any way; the rest must go on, and the reason must be seen.
        except Exception as error:  # noqa: BLE001
            registry.failures[entry_point.name] = f"{type(error).__name__}: {error}"
    return registry


@functools.cache
def load_registry() -> BackendRegistry:
    """The backends installed in this environment; scanned once per process."""
    return build_registry(entry_points(group=ENTRY_POINT_GROUP))
