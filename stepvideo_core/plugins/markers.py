"""Names that the host and its plugins share."""

import pluggy

PROJECT = "stepvideo"
ENTRY_POINT_GROUP = "stepvideo.backends"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
