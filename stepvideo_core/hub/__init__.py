"""Model hubs: from an id such as `stepfun-ai/stepvideo-t2v` to a checkpoint folder."""

from stepvideo_core.hub.fetch import HUBS, Hub, download_model, models_folder
from stepvideo_core.hub.resolve import is_model_id, open_checkpoint

__all__ = [
    "HUBS",
    "Hub",
    "download_model",
    "is_model_id",
    "models_folder",
    "open_checkpoint",
]
