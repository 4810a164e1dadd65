"""The contact sheet: every video as a row of stills over time, with what was right and wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from stepvideo_core.checkpoints.files import atomic_path

NUM_STILLS = 6
MAX_ROWS = 60
"""Rows of one sheet; more videos go on to another."""

_MIN_SIDE, _MAX_SIDE = 96, 160
_GAP, _LINE, _LABEL, _LINES = 4, 16, 340, 5
_INK, _RIGHT, _WRONG, _PAPER = (30, 30, 30), (0, 120, 50), (200, 30, 30), (255, 255, 255)
# Fonts with Chinese characters that systems have, by the names under which Pillow finds them.
_FONTS = (
    "NotoSansCJK-Regular.ttc",
    "NotoSansSC-Regular.otf",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "DroidSansFallback.ttf",
    "msyh.ttc",
    "PingFang.ttc",
    "Hiragino Sans GB.ttc",
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One video of a sheet.

    stills_NHWC: uint8, from `stills`. title, caption: lines beside it; caption replaces a title
    that the fonts of this machine cannot write. marks: words with whether they are right.
    """

    stills_NHWC: Tensor
    title: str
    caption: str
    marks: Sequence[tuple[str, bool]] = ()


def stills(video_THWC: Tensor) -> Tensor:
    """Frames evenly over time, the first and the last among them, 96 to 160 pixels long.

    video_THWC: uint8 [T, H, W, 3]. Returns uint8 [N, h, w, 3], N at most 6.
    """
    count = min(NUM_STILLS, len(video_THWC))
    chosen = torch.linspace(0, len(video_THWC) - 1, count).round().long()
    frames = video_THWC[chosen]
    longest = max(frames.shape[1:3])
    if longest < _MIN_SIDE:
        times = -(-_MIN_SIDE // longest)
        return frames.repeat_interleave(times, dim=1).repeat_interleave(times, dim=2)
    factor = -(-longest // _MAX_SIDE)
    if factor == 1:
        return frames
    images = frames.movedim(-1, 1).float()
    small = torch.nn.functional.avg_pool2d(images, factor)
    return small.round().to(torch.uint8).movedim(1, -1).contiguous()


def write_sheets(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Write `sheet.png`, or `sheet-01.png`, … if the rows do not fit on one.

    Raises OutputError if a file cannot be written.
    """
    pages = [rows[start : start + MAX_ROWS] for start in range(0, len(rows), MAX_ROWS)]
    paths = []
    for number, page in enumerate(pages, start=1):
        path = folder / ("sheet.png" if len(pages) == 1 else f"sheet-{number:02d}.png")
        with atomic_path(path) as temporary:
            draw_sheet(page).save(temporary)
        paths.append(path)
    return paths


def draw_sheet(rows: Sequence[Row]) -> Image.Image:
    """Rows below one another: the text, then the stills from left to right."""
    heights = [max(row.stills_NHWC.shape[1], _LINES * _LINE) + _GAP for row in rows]
    width = max(len(row.stills_NHWC) * (row.stills_NHWC.shape[2] + _GAP) for row in rows)
    sheet = Image.new("RGB", (_LABEL + width + _GAP, sum(heights) + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    chinese = _chinese_font()
    plain = ImageFont.load_default(_LINE - 4)
    top = _GAP
    for row, height in zip(rows, heights, strict=True):
        title, font = row.title, plain
        if not title.isascii():
            title, font = (title, chinese) if chinese is not None else (row.caption, plain)
        for line, text in enumerate(_wrapped(title, font)):
            draw.text((_GAP, top + line * _LINE), text, fill=_INK, font=font)
        _draw_marks(draw, row.marks, top + 2 * _LINE, plain)
        for number, still_HWC in enumerate(row.stills_NHWC):
            left = _LABEL + number * (still_HWC.shape[1] + _GAP)
            sheet.paste(Image.fromarray(still_HWC.numpy()), (left, top))
        top += height
    return sheet


_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def _draw_marks(
    draw: ImageDraw.ImageDraw, marks: Sequence[tuple[str, bool]], top: int, font: _Font
) -> None:
    """A tick or a cross, drawn as lines because not every font has them, before each word."""
    left = _GAP
    for word, right in marks:
        length = 16 + int(draw.textlength(word, font=font))
        if left > _GAP and left + length > _LABEL - _GAP:
            left, top = _GAP, top + _LINE
        colour = _RIGHT if right else _WRONG
        x, y = left, top + 3
        if right:
            draw.line([(x, y + 4), (x + 3, y + 7), (x + 8, y)], fill=colour, width=2)
        else:
            draw.line([(x, y), (x + 7, y + 7)], fill=colour, width=2)
            draw.line([(x, y + 7), (x + 7, y)], fill=colour, width=2)
        draw.text((x + 10, top - 1), word, fill=colour, font=font)
        left += length


def _wrapped(text: str, font: _Font) -> list[str]:
    """At most two lines of the label's width."""
    lines, line = [], ""
    words = text.split(" ") if " " in text else list(text)
    glue = " " if " " in text else ""
    for word in words:
        longer = f"{line}{glue}{word}" if line else word
        if line and font.getlength(longer) > _LABEL - 3 * _GAP:
            lines.append(line)
            line = word
        else:
            line = longer
    lines.append(line)
    return lines if len(lines) <= 2 else [lines[0], f"{lines[1]} …"]


def _chinese_font() -> ImageFont.FreeTypeFont | None:
    for name in _FONTS:
        try:
            return ImageFont.truetype(name, _LINE - 4)
        except OSError:  # not installed
            continue
    return None
