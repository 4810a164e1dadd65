"""The plugin seam: how backends, ours and anybody's, reach the registry.

A plugin is a module named in the entry-point group `stepvideo.backends` that implements one hook:

    from stepvideo_core.plugins import hookimpl

    @hookimpl
    def stepvideo_register_backends(registry):
        registry.add(Backend(name="mine", ...))
"""

from stepvideo_core.plugins.manager import load_registry
from stepvideo_core.plugins.markers import ENTRY_POINT_GROUP, PROJECT, hookimpl

__all__ = ["ENTRY_POINT_GROUP", "PROJECT", "hookimpl", "load_registry"]
