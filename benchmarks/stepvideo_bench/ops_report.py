"""The HTML report of `bench ops`."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from stepvideo_bench import charts
from stepvideo_bench.canvas import svg
from stepvideo_bench.page import cards, cell, details, facts, figure, page, table
from stepvideo_bench.rows import OpsRecord, Row
from stepvideo_bench.tables import row_texts
from stepvideo_bench.units import format_bandwidth, format_rate

_COLUMNS = (
    ("implementation", ""),
    ("median", "n"),
    ("p20 - p80", "n"),
    ("rate", "n"),
    ("bound", ""),
    ("of roof", "n"),
    ("speed-up", "n"),
    ("error", "n"),
    ("peak", "n"),
)


def html_report(record: OpsRecord) -> str:
    """One self-contained page: summary, figures, a table per operator, what was not measured."""
    machine = record.environment["machine"]
    where = machine["device"] if machine["device"] != "cpu" else machine["cpu"]
    dtype = record.rows[0].dtype if record.rows else ""
    presets = ", ".join(dict.fromkeys(row.preset for row in record.rows))
    lead = f"{where}, {machine['threads']} threads, {dtype}, {presets}"
    return page(
        "stepvideo bench ops",
        lead,
        _body(record),
        "Roof: the larger of operations over the probed product rate and bytes over the probed "
        "copy rate. Operations and bytes are counted from shapes; a share above 100 % is flagged, "
        "never a win: something left the probe or the count behind, as a warm cache does.",
    )


def _body(record: OpsRecord) -> Iterator[str]:
    rows = charts.measured(record.rows)
    flagged = sum(row.above_ceiling for row in rows)
    ceilings = record.ceilings
    yield cards(
        [
            ("rows measured", f"{len(rows)} of {len(record.rows)}"),
            (f"products, {ceilings['gemm']}", format_rate(ceilings["flops_per_second"]) + "FLOP/s"),
            ("copy", format_bandwidth(ceilings["bytes_per_second"])),
            ("flagged above the roof", str(flagged)),
        ]
    )
    sheet = ceilings.get("datasheet")
    if sheet:
        yield (
            f'<p class="note">Datasheet: {escape(sheet["text"])} ({escape(sheet["source"])}).</p>'
        )
    yield "<h2>Roofline</h2>"
    yield figure(
        svg(charts.roofline(record), standalone=False),
        "Operators with products, at the rate that each implementation reached. Filled: what "
        "auto takes here. The line is what the probes reached.",
    )
    yield "<h2>What auto takes, furthest from the roof first</h2>"
    yield table(
        [("operator", ""), ("site", ""), ("implementation", ""), ("of roof", "n"), ("calls", "n")],
        [
            "<tr>"
            + "".join(
                [
                    cell(row.op),
                    cell(f"{row.site}, {row.preset}"),
                    cell(row.impl),
                    _share(row),
                    cell(row.count, "n"),
                ]
            )
            + "</tr>"
            for row in sorted(rows, key=lambda row: row.ceiling_pct or 0.0)
            if row.planned
        ][:12],
    )
    for op in dict.fromkeys(row.op for row in rows):
        yield from _operator(record, op)
    yield from _missing(record)
    yield "<h2>How it was measured</h2>"
    yield facts(_facts(record))


def _operator(record: OpsRecord, op: str) -> Iterator[str]:
    yield f'<h2 id="{escape(op)}">{escape(op)}</h2>'
    yield figure(
        svg(charts.bars(record.rows, op), standalone=False),
        "Time per call; the mark is the roof, * what auto takes.",
    )
    for site in dict.fromkeys(row.site for row in record.rows if row.op == op):
        lines = charts.latency(record.rows, op, site)
        if lines is not None:
            yield figure(svg(lines, standalone=False), f"{op} at {site} over video tokens.")
    tables = []
    groups: dict[tuple[str, str, str, str], list[Row]] = {}
    for row in charts.measured(record.rows):
        if row.op == op:
            groups.setdefault(row.call, []).append(row)
    for (preset, _, site, shape), group in groups.items():
        title = f"<h3>{escape(site)}, {escape(preset)}</h3>"
        note = f'<p class="note"><code>{escape(shape)}</code>, {group[0].count} calls</p>'
        tables.append(title + note + table(_COLUMNS, map(_line, group)))
    yield details("All figures", "".join(tables))


def _line(row: Row) -> str:
    texts = row_texts(row)
    mark = ' class="planned"' if row.planned else ""
    return (
        f"<tr{mark}>"
        + cell(row.impl + (" *" if row.planned else ""))
        + cell(texts["median"], "n")
        + cell(texts["p20 - p80"], "n")
        + cell(texts["rate"], "n")
        + cell(row.bound)
        + _share(row)
        + cell(texts["speed-up"], "n")
        + cell(texts["rel. error"], "n")
        + cell(texts["peak"], "n")
        + "</tr>"
    )


def _share(row: Row) -> str:
    text = row_texts(row)["of roof"]
    return cell(text, "n bad" if row.above_ceiling else "n")


def _missing(record: OpsRecord) -> Iterator[str]:
    rows = [row for row in record.rows if row.status != "measured"]
    if rows:
        yield "<h2>Not measured</h2>"
        yield table(
            [("operator", ""), ("site", ""), ("implementation", ""), ("status", ""), ("why", "w")],
            [
                f"<tr>{cell(row.op)}{cell(f'{row.site}, {row.preset}')}{cell(row.impl)}"
                f"{cell(row.status, 'bad' if row.status == 'failed' else 'off')}"
                f"{cell('; '.join(row.reasons), 'w')}</tr>"
                for row in rows
            ],
        )


def _facts(record: OpsRecord) -> list[tuple[str, object]]:
    environment = record.environment
    found: list[tuple[str, object]] = [("when", environment["when"])]
    found += [(name, value) for name, value in environment["machine"].items()]
    found += [("load", environment["load"]), ("revision", environment["revision"])]
    found += [(name, value) for name, value in environment["versions"].items()]
    found += [("device", line) for line in environment["devices"]]
    found += [(name, value) for name, value in record.settings.items()]
    return found
