"""Compressed outputs through PyAV: mp4, webm and GIF. Frames go straight into the encoder."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.filter
from av.codec.codec import UnknownCodecError
from av.filter import Graph
from av.filter.context import FilterContext
from av.video.stream import VideoStream

from stepvideo_core.errors import OutputError
from stepvideo_core.video.base import Frames, FrameWriter
from stepvideo_core.video.pixels import Crop
from stepvideo_core.video.record import COMMENT, to_json

Filter = tuple[str, str]
"""An FFmpeg filter and its arguments."""

DENOISE: Filter = ("atadenoise", "0a=0.1:0b=0.1:1a=0.1:1b=0.1")
"""The official temporal denoiser; runs on yuv420p, as in the official command line."""

_MATRIX_BT601, _PRIMARIES_BT709, _TRANSFER_BT709, _RANGE_LIMITED = 6, 1, 1, 1
_MIN_FPS, _MAX_FPS, _GIF_MAX_FPS = 0.1, 1000.0, 50


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """One way to compress a video: FFmpeg's names and options."""

    container: str
    codec: str
    filters: tuple[Filter, ...]
    """From RGB frames to what the encoder takes."""
    pixel_format: str
    options: Mapping[str, str] = field(default_factory=dict)
    container_options: Mapping[str, str] = field(default_factory=dict)


# Decoders that ignore a file's colour tags convert by BT.601 (OpenCV does), and those that read
# them take what they say: so BT.601, tagged, is right everywhere. The official files are BT.601
# as well, but without a tag.
_TO_YUV420P: tuple[Filter, ...] = (
    ("scale", "out_color_matrix=bt601:out_range=tv:flags=bicubic+accurate_rnd+full_chroma_int"),
    ("format", "yuv420p"),
)

MP4 = Encoding(
    container="mp4",
    codec="libx264",
    filters=_TO_YUV420P,
    pixel_format="yuv420p",
    # With its macroblock tree (mbtree), x264 often makes other files from the same frames: seen
    # with PyAV 13.1 to 18.1, with one thread too, but not without its assembler. A seed should
    # give the same video, so it is off. Quality 20 without it is a little better than 18 with it.
    options={"crf": "20", "mbtree": "0", "preset": "medium"},
    # The index in front: browsers begin to play before they have the whole file.
    container_options={"movflags": "+faststart"},
)
WEBM = Encoding(
    container="webm",
    codec="libvpx-vp9",
    filters=_TO_YUV420P,
    pixel_format="yuv420p",
    options={"crf": "24", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"},
    # Otherwise the container gets a random identifier, and no two files are the same.
    container_options={"fflags": "+bitexact"},
)
# A palette for each frame: better colours than one for all, and no frame has to wait for the last.
# The ordered dither stands still, where error diffusion would flicker.
GIF = Encoding(
    container="gif",
    codec="gif",
    filters=(
        ("split", ""),
        ("palettegen", "stats_mode=single:reserve_transparent=0"),
        ("paletteuse", "new=1:dither=bayer:bayer_scale=3"),
    ),
    pixel_format="pal8",
    container_options={"loop": "0"},
)


def check_encoding(encoding: Encoding, denoise: bool = False) -> None:
    """OutputError if PyAV's FFmpeg was built without something that is needed."""
    try:
        av.Codec(encoding.codec, "w")
    except UnknownCodecError:
        raise OutputError(
            f".{encoding.container} cannot be written: PyAV's FFmpeg has no {encoding.codec} "
            "encoder; install PyAV from its official wheels (pip install av), or name another "
            "format or a folder for PNG frames"
        ) from None
    available = av.filter.filters_available
    missing = [name for name, _ in encoding.filters if name not in available]
    if missing:
        raise OutputError(
            f".{encoding.container} cannot be written: PyAV's FFmpeg lacks the filter "
            f"{', '.join(missing)}; install PyAV from its official wheels (pip install av), or "
            "name another format or a folder for PNG frames"
        )
    if denoise and DENOISE[0] not in available:
        raise OutputError(
            f".{encoding.container} cannot be denoised: PyAV's FFmpeg lacks the filter "
            f"{DENOISE[0]}; switch it off with --no-denoise-filter"
        )


class EncodedWriter(FrameWriter):
    """mp4 or webm: H.264 or VP9 in yuv420p, the record as the container's `comment`."""

    def __init__(
        self,
        path: Path,
        *,
        height: int,
        width: int,
        fps: float,
        crop: Crop | None,
        metadata: Mapping[str, Any],
        encoding: Encoding,
        denoise: bool = False,
    ) -> None:
        """denoise: the official filter over time.

        Raises OutputError for a size or rate that the format cannot have, and if FFmpeg lacks a
        part.
        """
        super().__init__(path, height=height, width=width, crop=crop, metadata=metadata)
        check_encoding(encoding, denoise)
        if not _MIN_FPS <= fps <= _MAX_FPS:
            raise OutputError(
                f"{path} cannot play {fps:g} frames a second; the rate must be between "
                f"{_MIN_FPS:g} and {_MAX_FPS:g}"
            )
        self._encoding = encoding
        self._filters = (*encoding.filters, *((DENOISE,) if denoise else ()))
        self._rate = Fraction(fps).limit_denominator(1001)
        self._num_encoded = 0
        self._check_format()

    def _check_format(self) -> None:
        height, width = self.size
        if height % 2 or width % 2:
            raise OutputError(
                f"{self.path} cannot hold frames of {width}x{height}: {self._encoding.codec} in "
                "yuv420p needs even sizes; name a .gif, a .safetensors or a folder for PNG frames"
            )

    def _begin(self) -> None:
        self._target = self._temporary_file()
        self._open(self._target)
        self._container.metadata[COMMENT] = to_json(self._metadata)
        codec = self._stream.codec_context
        codec.colorspace, codec.color_range = _MATRIX_BT601, _RANGE_LIMITED
        codec.color_primaries, codec.color_trc = _PRIMARIES_BT709, _TRANSFER_BT709

    def _open(self, target: Path) -> None:
        """Start FFmpeg's container, encoder and filters for a file."""
        encoding = self._encoding
        # Absolute, because FFmpeg takes what stands before a colon for a protocol.
        self._container = av.open(
            str(target.absolute()),
            "w",
            format=encoding.container,
            options=dict(encoding.container_options),
        )
        self._stack.callback(self._close_quietly)
        stream = self._container.add_stream(
            encoding.codec, rate=self._rate, options=dict(encoding.options)
        )
        if not isinstance(stream, VideoStream):
            raise TypeError(f"{encoding.codec} is no video codec")
        self._stream = stream
        stream.height, stream.width = self.size
        stream.pix_fmt = encoding.pixel_format
        # Some versions of PyAV set a rate of their own, which would cap the quality.
        stream.codec_context.bit_rate = 0
        self._graph, self._source = self._build_graph()

    def _build_graph(self) -> tuple[Graph, FilterContext]:
        graph = Graph()
        height, width = self.size
        source = graph.add_buffer(
            width=width,
            height=height,
            format=av.VideoFormat("rgb24"),
            time_base=1 / self._rate,
        )
        nodes = [source, *(graph.add(name, arguments) for name, arguments in self._filters)]
        nodes.append(graph.add("buffersink"))
        self._link(nodes)
        graph.configure()
        return graph, source

    def _link(self, nodes: list[FilterContext]) -> None:
        for node, following in itertools.pairwise(nodes):
            node.link_to(following)

    def _append(self, frames: Frames) -> None:
        for number, pixels in enumerate(frames, start=self.num_frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, 1 / self._rate
            self._source.push(frame)
            self._encode_ready()

    def _encode_ready(self) -> None:
        """Encode what the filters have ready: the denoiser looks ahead and holds some back."""
        while True:
            try:
                frame = self._graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            self._container.mux(self._stream.encode(frame))
            self._num_encoded += 1

    def _finish(self) -> None:
        self._source.push(None)
        self._encode_ready()
        if self._num_encoded != self.num_frames:
            # atadenoise before FFmpeg 8 swallows clips of fewer than four frames.
            raise OutputError(
                f"{self.path} cannot be written: FFmpeg's filters gave {self._num_encoded} of "
                f"{self.num_frames} frames; install a newer PyAV (pip install -U av) or use "
                "--no-denoise-filter"
            )
        self._container.mux(self._stream.encode(None))
        self._container.close()
        # FFmpeg ignores what closing says, and network file systems report a full disk there.
        with self._target.open("rb+") as file:
            os.fsync(file.fileno())

    def _close_quietly(self) -> None:
        """For files that are thrown away: the error that matters is already on its way."""
        with contextlib.suppress(OSError, av.error.FFmpegError):
            self._container.close()


class GifWriter(EncodedWriter):
    """A GIF that loops for ever; the record as its comment, in escaped JSON.

    The delays are whole hundredths of a second, so at rates that do not divide 100 they vary by
    one and keep the length right.
    """

    def _check_format(self) -> None:
        if self._rate > _GIF_MAX_FPS:
            raise OutputError(
                f"{self.path} cannot play {float(self._rate):g} frames a second: browsers slow "
                f"GIFs down beyond {_GIF_MAX_FPS}; name an .mp4 or .webm, or lower the rate"
            )

    def _begin(self) -> None:
        self._target = self._temporary_file()
        self._scratch = self._target.with_name(f"{self._target.name}.raw")
        self._stack.callback(self._scratch.unlink, missing_ok=True)
        self._open(self._scratch)

    def _link(self, nodes: list[FilterContext]) -> None:
        source, split, generate, use, sink = nodes
        source.link_to(split)
        split.link_to(use, 0, 0)
        split.link_to(generate, 1, 0)
        generate.link_to(use, 0, 1)
        use.link_to(sink)

    def _finish(self) -> None:
        """FFmpeg writes no comments; readers look for one before the first frame."""
        final, self._target = self._target, self._scratch
        super()._finish()
        # Escaped, because the format's comments are ASCII.
        comment = _gif_comment(to_json(self._metadata, ascii_only=True).encode("ascii"))
        with self._scratch.open("rb") as source, final.open("wb") as sink:
            head = source.read(13)
            has_table, table_bits = head[10] & 0x80, (head[10] & 7) + 1
            head += source.read(3 << table_bits) if has_table else b""
            sink.write(head + comment)
            shutil.copyfileobj(source, sink)


def _gif_comment(text: bytes) -> bytes:
    """A comment extension: blocks of up to 255 bytes, each behind its length, then a zero."""
    blocks = [text[start : start + 255] for start in range(0, len(text), 255)]
    return b"\x21\xfe" + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"
