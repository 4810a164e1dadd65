"""Frames of a video file or a picture, one after another, as they would be shown."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import av
import av.error
import torch
from PIL import Image
from torch import Tensor

from stepvideo_core.errors import InvalidRequest
from stepvideo_core.image import read_image

_ANIMATIONS = {".gif", ".apng"}
_WHITE = 255


class FrameReader:
    """Upright RGB frames of a file; a context manager.

    height, width: of every frame. fps: the average rate; None for a picture. notes: what the user
    should know about the file; complete when all frames have been read.
    """

    def __init__(self, path: Path) -> None:
        """Raises InvalidRequest if the file is missing, or no video and no picture."""
        self.path = path
        self.notes: list[str] = []
        self.fps: float | None = None
        self._stack = contextlib.ExitStack()
        self._frames = self._picture() if _is_picture(path) else self._video()
        # The first frame tells the size: containers know nothing of rotation.
        self._first = next(self._frames)
        self.height, self.width = self._first.shape[:2]

    def __enter__(self) -> FrameReader:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def frames(self, limit: int | None = None) -> Iterator[Tensor]:
        """uint8 frames [H, W, 3], at most `limit`; can be read once.

        Raises InvalidRequest where the file is damaged or ends too early.
        """
        yield self._first
        # Not one frame more is decoded: what lies behind the limit may be damaged.
        others = itertools.islice(self._frames, None if limit is None else limit - 1)
        for number, frame_HWC in enumerate(others, start=1):
            if frame_HWC.shape != self._first.shape:
                height, width = frame_HWC.shape[:2]
                raise InvalidRequest(
                    f"{self.path} changes its size: frame {number} is {width}x{height}, the first "
                    f"is {self.width}x{self.height}; take the frames before it with --frames "
                    f"{number}"
                )
            yield frame_HWC

    def _picture(self) -> Iterator[Tensor]:
        picture = read_image(self.path)
        self.notes += picture.notes
        yield ((picture.pixels_CHW + 1) * 127.5).round().to(torch.uint8).movedim(0, -1).contiguous()

    def _video(self) -> Iterator[Tensor]:
        if not self.path.is_file():
            raise InvalidRequest(f"{self.path} is missing, or no file")
        count = 0
        try:
            # Absolute, because FFmpeg takes what stands before a colon for a protocol.
            container = self._stack.enter_context(av.open(str(self.path.absolute())))
            if not container.streams.video:
                raise InvalidRequest(f"{self.path} has no pictures in it, only sound or text")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            if stream.average_rate:
                self.fps = float(stream.average_rate)
            times: list[float] = []
            for frame in container.decode(stream):
                if frame.time is not None:
                    times.append(frame.time)
                yield self._upright(frame)
                count += 1
        except (av.error.FFmpegError, OSError) as error:
            reason = error.strerror or str(error)
            if not count:
                raise InvalidRequest(
                    f"{self.path} cannot be read as a video or a picture: {reason}"
                ) from error
            raise InvalidRequest(
                f"{self.path} is damaged: after {count} frames it cannot be decoded ({reason}); "
                f"take those with --frames {count}, or copy the file again"
            ) from error
        if not count:
            raise InvalidRequest(f"{self.path} has no frame that can be decoded")
        length = None if container.duration is None else container.duration / av.time_base
        self._check_whole(count, stream.frames, length, times)
        self._note_uneven_rate(times)

    def _check_whole(
        self, count: int, announced: int, length: float | None, times: list[float]
    ) -> None:
        """A file that was cut off may end without an error, at the end of a frame.

        An edit list hides frames as well, but then the length says so, too.
        """
        shown = times[-1] - times[0] if times else 0.0
        if length is None or self.fps is None or count >= announced:
            return
        if shown + 2 / self.fps < length:
            raise InvalidRequest(
                f"{self.path} is cut off: it announces {announced} frames, but only {count} are "
                f"there; take those with --frames {count}, or copy the file again"
            )

    def _note_uneven_rate(self, times: list[float]) -> None:
        steps = [later - earlier for earlier, later in itertools.pairwise(times)]
        if steps and max(steps) > 1.5 * min(steps):
            self.notes.append(
                f"{self.path} has a variable frame rate: every frame is taken as it comes, and the "
                f"average of {self.fps or 0:.4g} frames a second is kept"
            )

    def _upright(self, frame: av.VideoFrame) -> Tensor:
        if any(component.is_alpha for component in frame.format.components):
            self._note_once(f"{self.path} has transparent parts; they are shown over white")
            rgba_HWC = torch.from_numpy(frame.to_ndarray(format="rgba")).float()
            alpha_HW1 = rgba_HWC[..., 3:] / 255
            rgb_HWC = rgba_HWC[..., :3] * alpha_HW1 + _WHITE * (1 - alpha_HW1)
            pixels_HWC = rgb_HWC.round().to(torch.uint8)
        else:
            pixels_HWC = torch.from_numpy(frame.to_ndarray(format="rgb24"))
        if frame.rotation % 90:
            raise InvalidRequest(
                f"{self.path} is to be shown turned by {frame.rotation} degrees; only quarter "
                "turns can be taken into account"
            )
        return torch.rot90(pixels_HWC, frame.rotation // 90, (0, 1)).contiguous()

    def _note_once(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def _is_picture(path: Path) -> bool:
    suffix = path.suffix.lower()
    return suffix in Image.registered_extensions() and suffix not in _ANIMATIONS | {".mpg", ".mpeg"}
