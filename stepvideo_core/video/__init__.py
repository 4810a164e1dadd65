"""From pixels to files: uint8 frames, the official crop and filter, and a writer per format."""

from stepvideo_core.video.base import FrameWriter
from stepvideo_core.video.encode import GIF, MP4, WEBM, Encoding
from stepvideo_core.video.outputs import (
    FPS,
    OutputKind,
    check_output,
    open_writer,
    output_kind,
)
from stepvideo_core.video.pixels import crop_540p, to_uint8
from stepvideo_core.video.record import read_metadata, sidecar_path, write_sidecar

__all__ = [
    "FPS",
    "GIF",
    "MP4",
    "WEBM",
    "Encoding",
    "FrameWriter",
    "OutputKind",
    "check_output",
    "crop_540p",
    "open_writer",
    "output_kind",
    "read_metadata",
    "sidecar_path",
    "to_uint8",
    "write_sidecar",
]
