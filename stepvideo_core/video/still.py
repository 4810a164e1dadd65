"""One frame as a PNG file, the record inside and beside it as with every output."""

from __future__ import annotations

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from stepvideo_core.errors import OutputError
from stepvideo_core.video.base import Frames, FrameWriter
from stepvideo_core.video.record import PNG_COMMENT, to_json


class StillWriter(FrameWriter):
    """`picture.png`; raises OutputError if a second frame comes."""

    def _begin(self) -> None:
        self._target = self._temporary_file()

    def _append(self, frames: Frames) -> None:
        if self.num_frames + len(frames) > 1:
            raise OutputError(
                f"{self.path} holds one frame, but there are more: name a video, or a folder "
                "without a dot for PNG frames"
            )
        text = PngInfo()
        text.add_itxt(PNG_COMMENT, to_json(self._metadata))
        Image.fromarray(frames[0]).save(self._target, pnginfo=text)

    def _finish(self) -> None:
        """The file is complete already."""
