"""`bench ops` as text: cells for people, CSV and Markdown for files."""

from __future__ import annotations

import csv
import io

from stepvideo_bench.rows import OpsRecord, Row
from stepvideo_bench.units import format_bandwidth, format_rate, format_seconds
from stepvideo_core.memory.units import format_bytes

_CSV_LEFT_OUT = {"samples"}


def row_texts(row: Row) -> dict[str, str]:
    """The figures of a row as people read them; empty where there is none."""
    if row.median_s is None or row.p20_s is None or row.p80_s is None:
        return dict.fromkeys(
            ("median", "p20 - p80", "rate", "of roof", "speed-up", "rel. error", "peak"), ""
        )
    rate = ""
    if row.bound == "compute" and row.tflops is not None:
        rate = format_rate(row.tflops * 1e12) + "FLOP/s"
    elif row.gbs is not None:
        rate = format_bandwidth(row.gbs * 1e9)
    flag = " (!)" if row.above_ceiling else ""
    return {
        "median": format_seconds(row.median_s),
        "p20 - p80": f"{format_seconds(row.p20_s)} - {format_seconds(row.p80_s)}",
        "rate": rate,
        "of roof": f"{row.ceiling_pct:.0f} %{flag}",
        # A figure that beats the roof is a doubt, so it is no win either.
        "speed-up": "" if row.speedup is None or flag else f"{row.speedup:.2f} x",
        "rel. error": "" if row.rel_error is None else f"{row.rel_error:.1e}",
        "peak": "" if row.peak_bytes is None else format_bytes(row.peak_bytes),
    }


def csv_text(record: OpsRecord) -> str:
    """One line per row, every field but the samples; reasons joined by `; `."""
    stream = io.StringIO()
    names = [name for name in Row.__dataclass_fields__ if name not in _CSV_LEFT_OUT]
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    for row in record.rows:
        values = {name: value for name, value in row.as_json().items() if name in names}
        writer.writerow(values | {"reasons": "; ".join(row.reasons)})
    return stream.getvalue()


def markdown(record: OpsRecord) -> str:
    """What was measured on, and one table per preset."""
    machine = record.environment["machine"]
    ceilings = record.ceilings
    lines = [
        "# stepvideo bench ops",
        "",
        f"- machine: {machine['device']}, {machine['cpu']}, {machine['threads']} threads",
        f"- versions: {', '.join(f'{k} {v}' for k, v in record.environment['versions'].items())}",
        f"- when: {record.environment['when']}, load {record.environment['load']}, "
        f"revision {record.environment['revision']}",
        f"- ceilings: {format_rate(ceilings['flops_per_second'])}FLOP/s ({ceilings['gemm']}), "
        f"{format_bandwidth(ceilings['bytes_per_second'])} copy",
    ]
    if ceilings.get("datasheet"):
        lines.append(f"- datasheet: {ceilings['datasheet']['text']}")
    columns = ["op", "site", "shape", "implementation", "median", "p20 - p80", "rate", "bound"]
    columns += ["of roof", "speed-up", "rel. error", "peak"]
    for preset in dict.fromkeys(row.preset for row in record.rows):
        rows = [row for row in record.rows if row.preset == preset]
        lines += ["", f"## {preset}, {rows[0].dtype}", "", _markdown_row(columns)]
        lines.append("|" + "---|" * len(columns))
        for row in rows:
            if row.status != "measured":
                continue
            texts = row_texts(row)
            impl = f"**{row.impl}**" if row.planned else row.impl
            cells = [row.op, row.site, row.shape, impl, texts["median"], texts["p20 - p80"]]
            cells += [texts["rate"], row.bound, texts["of roof"], texts["speed-up"]]
            lines.append(_markdown_row([*cells, texts["rel. error"], texts["peak"]]))
        missing = [row for row in rows if row.status != "measured"]
        if missing:
            lines += ["", "Not measured:", ""]
            lines += [
                f"- {row.op}@{row.site} {row.impl}: {row.status}, {'; '.join(row.reasons)}"
                for row in missing
            ]
    lines += ["", "Bold: what `auto` takes here. (!): above the probed roof, so not to be quoted."]
    return "\n".join(lines) + "\n"


def _markdown_row(cells: list[str]) -> str:
    return "| " + " | ".join(text.replace("|", "/") for text in cells) + " |"
