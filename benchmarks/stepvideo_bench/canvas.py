"""A drawing as a list of shapes, written as SVG or painted as PNG.

Colours are roles, not values: an SVG takes them from CSS variables, so that one drawing serves a
light and a dark page; a PNG is painted in the light palette.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Literal

from PIL import Image, ImageColor, ImageDraw, ImageFont

Anchor = Literal["start", "middle", "end"]

# Okabe and Ito's palette, which stays distinct for colour-blind readers, in shades that keep a
# contrast of 3:1 to the page.
LIGHT = {
    "page": "#ffffff",
    "text": "#1b1f24",
    "muted": "#59636e",
    "grid": "#d8dee4",
    "s0": "#0072b2",
    "s1": "#c85200",
    "s2": "#00795a",
    "s3": "#a8467f",
    "s4": "#8a6d00",
    "s5": "#3f6fb5",
    "s6": "#6b4fa3",
    "s7": "#59636e",
    "bad": "#b3261e",
}
DARK = {
    "page": "#0f141a",
    "text": "#e6edf3",
    "muted": "#9aa7b4",
    "grid": "#2b333c",
    "s0": "#56b4e9",
    "s1": "#ff9d57",
    "s2": "#3fcf9f",
    "s3": "#e58fc0",
    "s4": "#e6c84a",
    "s5": "#8db4f0",
    "s6": "#b7a0ec",
    "s7": "#9aa7b4",
    "bad": "#ff8a80",
}
NUM_SERIES = 8
_SCALE = 2  # PNG pixels per unit
# Pillow's own font, the only one that is everywhere, lacks these.
_NO_GLYPH = str.maketrans({"µ": "u", "…": "..."})


@dataclass(frozen=True)
class Line:
    points: tuple[tuple[float, float], ...]
    color: str = "grid"
    width: float = 1.0
    dashed: bool = False


@dataclass(frozen=True)
class Rect:
    x: float
    y: float
    width: float
    height: float
    color: str
    title: str = ""


@dataclass(frozen=True)
class Dot:
    x: float
    y: float
    radius: float
    color: str
    title: str = ""
    hollow: bool = False


@dataclass(frozen=True)
class Text:
    x: float
    y: float
    text: str
    anchor: Anchor = "start"
    color: str = "text"
    size: float = 12.0


Shape = Line | Rect | Dot | Text


@dataclass
class Drawing:
    """Shapes on a page of `width` x `height` units; `label` is what a screen reader says."""

    width: float
    height: float
    label: str
    shapes: list[Shape] = field(default_factory=list)

    def add(self, *shapes: Shape) -> None:
        self.shapes.extend(shapes)


def svg(drawing: Drawing, *, standalone: bool) -> str:
    """The drawing as an SVG element; `standalone` adds the palettes, for a file of its own."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {drawing.width:g} '
        f'{drawing.height:g}" role="img" aria-label="{escape(drawing.label, quote=True)}" '
        f'font-family="system-ui, sans-serif">'
    )
    body = [_svg_shape(shape) for shape in drawing.shapes]
    if standalone:
        page = f'<rect width="{drawing.width:g}" height="{drawing.height:g}" fill="var(--page)"/>'
        body = [f"<style>{palette_css('svg')}</style>", page, *body]
    return "\n".join([head, *body, "</svg>"])


def palette_css(selector: str) -> str:
    """CSS variables of both palettes on `selector`; the system's preference chooses."""
    light, dark = (
        "".join(f"--{name}:{value};" for name, value in palette.items())
        for palette in (LIGHT, DARK)
    )
    return f"{selector}{{{light}}}\n@media (prefers-color-scheme: dark){{{selector}{{{dark}}}}}"


def _svg_shape(shape: Shape) -> str:
    if isinstance(shape, Line):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in shape.points)
        dash = ' stroke-dasharray="5 4"' if shape.dashed else ""
        return (
            f'<polyline points="{points}" fill="none" stroke="var(--{shape.color})" '
            f'stroke-width="{shape.width:g}"{dash}/>'
        )
    if isinstance(shape, Text):
        return (
            f'<text x="{shape.x:.1f}" y="{shape.y:.1f}" text-anchor="{shape.anchor}" '
            f'font-size="{shape.size:g}" fill="var(--{shape.color})">{escape(shape.text)}</text>'
        )
    title = f"<title>{escape(shape.title)}</title>" if shape.title else ""
    if isinstance(shape, Rect):
        return (
            f'<rect x="{shape.x:.1f}" y="{shape.y:.1f}" width="{shape.width:.1f}" '
            f'height="{shape.height:.1f}" rx="2" fill="var(--{shape.color})">{title}</rect>'
        )
    fill, stroke = ("var(--page)", f"var(--{shape.color})") if shape.hollow else (
        f"var(--{shape.color})", "var(--page)")  # fmt: skip
    return (
        f'<circle cx="{shape.x:.1f}" cy="{shape.y:.1f}" r="{shape.radius:g}" fill="{fill}" '
        f'stroke="{stroke}" stroke-width="1.5">{title}</circle>'
    )


def write_png(drawing: Drawing, path: Path) -> None:
    """Paint the drawing, two pixels per unit, in the light palette."""
    size = (round(drawing.width * _SCALE), round(drawing.height * _SCALE))
    image = Image.new("RGB", size, LIGHT["page"])
    pen = ImageDraw.Draw(image)
    for shape in drawing.shapes:
        _paint(pen, shape)
    image.save(path, format="PNG", optimize=True)


def _paint(pen: ImageDraw.ImageDraw, shape: Shape) -> None:
    color = ImageColor.getrgb(LIGHT[shape.color])
    if isinstance(shape, Line):
        points = [(x * _SCALE, y * _SCALE) for x, y in shape.points]
        pieces = _dashes(points) if shape.dashed else [points]
        for piece in pieces:
            pen.line(piece, fill=color, width=max(1, round(shape.width * _SCALE)))
    elif isinstance(shape, Rect):
        x, y = shape.x * _SCALE, shape.y * _SCALE
        pen.rectangle((x, y, x + shape.width * _SCALE, y + shape.height * _SCALE), fill=color)
    elif isinstance(shape, Dot):
        x, y, radius = (value * _SCALE for value in (shape.x, shape.y, shape.radius))
        fill = ImageColor.getrgb(LIGHT["page"]) if shape.hollow else color
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill, outline=color)
    else:
        font = ImageFont.load_default(shape.size * _SCALE)
        anchor = {"start": "ls", "middle": "ms", "end": "rs"}[shape.anchor]
        place = (shape.x * _SCALE, shape.y * _SCALE)
        text = shape.text.translate(_NO_GLYPH)
        pen.text(place, text, fill=color, font=font, anchor=anchor)


def _dashes(points: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    pieces = []
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
        steps = max(1, round(length / (9 * _SCALE)))
        for step in range(steps):
            begin, end = step / steps, (step + 0.55) / steps
            pieces.append([(x0 + (x1 - x0) * part, y0 + (y1 - y0) * part) for part in (begin, end)])
    return pieces
