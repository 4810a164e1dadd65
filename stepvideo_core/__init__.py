"""stepvideo: the maintained, hardware-portable runtime for the Step-Video family."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from stepvideo_core.pipeline import StepVideoPipeline
    from stepvideo_core.result import VideoResult

__all__ = ["StepVideoPipeline", "VideoResult", "__version__"]


def __getattr__(name: str) -> Any:
    # The pipeline pulls in torch and transformers; `stepvideo --help` should not wait for them.
    if name in ("StepVideoPipeline", "VideoResult"):
        from stepvideo_core import pipeline, result

        return getattr(pipeline if name == "StepVideoPipeline" else result, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
