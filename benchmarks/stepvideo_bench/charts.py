"""The three figures of a report: roofline, latency over sequence length, bars per operator."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from stepvideo_bench.canvas import NUM_SERIES, Dot, Drawing, Line, Rect, Text
from stepvideo_bench.rows import OpsRecord, Row
from stepvideo_bench.units import format_bandwidth, format_rate, format_seconds

_LEFT, _RIGHT, _TOP, _BOTTOM = 62.0, 30.0, 28.0, 46.0
_LEGEND_LINE, _LABEL = 18.0, 11.0


def measured(rows: Iterable[Row]) -> list[Row]:
    """The rows that have a time."""
    return [row for row in rows if row.median_s is not None]


def colors(names: Iterable[str]) -> dict[str, str]:
    """One series colour per name, in order of appearance."""
    return {name: f"s{index % NUM_SERIES}" for index, name in enumerate(dict.fromkeys(names))}


class _Log:
    """A logarithmic axis from values to units of the page."""

    def __init__(self, values: Sequence[float], first: float, last: float) -> None:
        self.low = 10 ** math.floor(math.log10(min(values)))
        self.high = max(10 ** math.ceil(math.log10(max(values))), 10 * self.low)
        self._first, self._last = first, last

    def __call__(self, value: float) -> float:
        share = math.log10(value / self.low) / math.log10(self.high / self.low)
        return self._first + share * (self._last - self._first)

    @property
    def ticks(self) -> list[float]:
        low, high = round(math.log10(self.low)), round(math.log10(self.high))
        step = max(1, (high - low) // 6)
        return [10.0**exponent for exponent in range(low, high + 1, step)]


def roofline(record: OpsRecord) -> Drawing:
    """Rate over intensity for operators with products, under the two probed ceilings."""
    rows = [row for row in measured(record.rows) if row.flops]
    palette = colors(row.op for row in rows)
    if any(row.above_ceiling for row in rows):
        palette["above the roof"] = "bad"
    width, height = 720.0, 380.0 + _LEGEND_LINE * _legend_lines(list(palette), 720.0)
    drawing = Drawing(width, height, "Roofline: FLOP/s reached over FLOP per byte")
    if not rows:
        drawing.add(Text(width / 2, 60, "no measured operator with products", "middle", "muted"))
        return drawing
    peak, bandwidth = (
        record.ceilings["flops_per_second"],
        record.ceilings["bytes_per_second"],
    )
    rates = [row.flops / row.median_s for row in rows if row.median_s]
    intensities = [row.flops / row.num_bytes for row in rows]
    x = _Log([*intensities, peak / bandwidth], _LEFT, width - _RIGHT)
    y = _Log([*rates, peak], 380.0 - _BOTTOM, _TOP)
    for tick in x.ticks:
        drawing.add(Line(((x(tick), y(y.low)), (x(tick), y(y.high)))))
        drawing.add(Text(x(tick), 380.0 - _BOTTOM + 16, f"{tick:g}", "middle", "muted", _LABEL))
    for tick in y.ticks:
        drawing.add(Line(((x(x.low), y(tick)), (x(x.high), y(tick)))))
        drawing.add(Text(_LEFT - 6, y(tick) + 4, format_rate(tick), "end", "muted", _LABEL))
    drawing.add(Text((_LEFT + width) / 2, 380.0 - 8, "FLOP per byte", "middle", "muted"))
    corner, start = peak / bandwidth, max(x.low, y.low / bandwidth)
    roof = ((x(start), y(start * bandwidth)), (x(corner), y(peak)), (x(x.high), y(peak)))
    drawing.add(Line(roof, "text", 2.0))
    drawing.add(Text(_LEFT - 6, _TOP - 14, "FLOP/s", "end", "muted", _LABEL))
    label = f"roof: {format_rate(peak)}FLOP/s, {format_bandwidth(bandwidth)}"
    drawing.add(Text(x(x.high), _TOP - 8, label, "end", "text", _LABEL))
    for row in rows:
        assert row.median_s is not None
        drawing.add(
            Dot(
                x(row.flops / row.num_bytes),
                y(row.flops / row.median_s),
                5.0 if row.planned else 3.5,
                "bad" if row.above_ceiling else palette[row.op],
                _title(row),
                hollow=not row.planned,
            )
        )
    _legend(drawing, palette, 380.0 + 4)
    return drawing


def bars(rows: Sequence[Row], op: str) -> Drawing:
    """Time of every implementation of one operator, site by site; a mark where the roof is."""
    chosen = [row for row in measured(rows) if row.op == op]
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in chosen:
        groups.setdefault((row.preset, row.site, row.shape), []).append(row)
    name_width, line, gap = 170.0, 18.0, 30.0
    height = sum(gap + line * len(group) + 8 for group in groups.values()) or 30.0
    drawing = Drawing(720.0, height, f"Time per call of {op}, per implementation")
    palette = colors(row.impl for row in rows)
    top = 0.0
    for (preset, site, shape), group in groups.items():
        drawing.add(Text(0, top + 18, f"{site}, {preset}"))
        drawing.add(Text(720.0, top + 18, _shortened(shape, 62), "end", "muted", 10.5))
        top += gap
        longest = max(row.median_s or 0.0 for row in group)
        span = 720.0 - name_width - 150.0
        for row in sorted(group, key=lambda row: row.median_s or 0.0):
            assert row.median_s is not None
            mark = " *" if row.planned else ""
            drawing.add(Text(name_width - 8, top + 12, row.impl + mark, "end", "text", _LABEL))
            length = max(1.0, span * row.median_s / longest)
            drawing.add(Rect(name_width, top + 2, length, line - 6, palette[row.impl], _title(row)))
            if not row.above_ceiling:
                roof = name_width + span * row.roof_s / longest
                drawing.add(Line(((roof, top), (roof, top + line - 2)), "text", 1.5))
            value = f"{format_seconds(row.median_s)}, {row.ceiling_pct:.0f} % of roof"
            color = "bad" if row.above_ceiling else "muted"
            drawing.add(Text(name_width + length + 6, top + 12, value, "start", color, _LABEL))
            top += line
        top += 8
    return drawing


def latency(rows: Sequence[Row], op: str, site: str) -> Drawing | None:
    """Time over sequence length, a line per implementation; None with fewer than two lengths."""
    chosen = [row for row in measured(rows) if row.op == op and row.site == site]
    if len({row.tokens for row in chosen}) < 2:
        return None
    palette = colors(row.impl for row in chosen)
    height = 260.0 + _LEGEND_LINE * _legend_lines(list(palette), 720.0)
    drawing = Drawing(720.0, height, f"Time of {op} at {site} over video tokens")
    x = _Log([row.tokens for row in chosen], _LEFT, 720.0 - _RIGHT)
    y = _Log([row.median_s or 0.0 for row in chosen], 260.0 - _BOTTOM, _TOP)
    for tick in x.ticks:
        drawing.add(Line(((x(tick), y(y.low)), (x(tick), y(y.high)))))
        drawing.add(Text(x(tick), 260.0 - _BOTTOM + 16, f"{tick:,.0f}", "middle", "muted", _LABEL))
    for tick in y.ticks:
        drawing.add(Line(((x(x.low), y(tick)), (x(x.high), y(tick)))))
        drawing.add(Text(_LEFT - 6, y(tick) + 4, format_seconds(tick), "end", "muted", _LABEL))
    drawing.add(Text((_LEFT + 720.0) / 2, 260.0 - 8, "video tokens", "middle", "muted"))
    for impl, color in palette.items():
        own = sorted((row for row in chosen if row.impl == impl), key=lambda row: row.tokens)
        points = tuple((x(row.tokens), y(row.median_s or 0.0)) for row in own)
        drawing.add(Line(points, color, 2.0))
        drawing.add(*(Dot(*point, 4.0, color, _title(row)) for point, row in zip(points, own)))  # noqa: B905
    _legend(drawing, palette, 264.0)
    return drawing


def all_drawings(record: OpsRecord) -> dict[str, Drawing]:
    """Every figure of a record by file name."""
    drawings = {"roofline": roofline(record)}
    for op in dict.fromkeys(row.op for row in measured(record.rows)):
        drawings[f"bars-{op}"] = bars(record.rows, op)
    for op, site in dict.fromkeys((row.op, row.site) for row in record.rows):
        lines = latency(record.rows, op, site)
        if lines is not None:
            drawings[f"latency-{op}-{site}"] = lines
    return drawings


def _title(row: Row) -> str:
    assert row.median_s is not None and row.ceiling_pct is not None
    return (
        f"{row.op} at {row.site} ({row.preset}), {row.impl}: {format_seconds(row.median_s)}, "
        f"{row.ceiling_pct:.0f} % of the {row.bound} roof"
    )


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _places(names: Sequence[str], width: float) -> list[tuple[float, int]]:
    """(x, line) of each legend entry."""
    places, x, line = [], _LEFT, 0
    for name in names:
        need = 30 + 7.6 * len(name)
        if x + need > width and x > _LEFT:
            x, line = _LEFT, line + 1
        places.append((x, line))
        x += need
    return places


def _legend_lines(names: Sequence[str], width: float) -> int:
    return max((line for _, line in _places(names, width)), default=0) + 1


def _legend(drawing: Drawing, palette: dict[str, str], top: float) -> None:
    names = list(palette)
    for name, (x, line) in zip(names, _places(names, drawing.width), strict=True):
        y = top + _LEGEND_LINE * line
        drawing.add(Rect(x, y, 11, 11, palette[name]), Text(x + 16, y + 10, name))
