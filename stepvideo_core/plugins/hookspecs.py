"""The one hook of stepvideo. It is public API; more of them would have to earn their place."""

from stepvideo_core.dispatch.registry import BackendRegistry
from stepvideo_core.plugins.markers import hookspec


@hookspec
def stepvideo_register_backends(registry: BackendRegistry) -> None:
    """Add this plugin's backends with `registry.add(Backend(...))`.

    Called once per process. Import no vendor library and touch no device here: that belongs into
    `Backend.load`, which runs only if `Backend.why_not()` found nothing missing.
    """
