"""Writing a record: the format follows from the name, a folder takes all of them."""

from __future__ import annotations

import json
from pathlib import Path

from stepvideo_bench.canvas import svg, write_png
from stepvideo_bench.charts import all_drawings
from stepvideo_bench.ops_report import html_report
from stepvideo_bench.rows import OpsRecord
from stepvideo_bench.tables import csv_text, markdown
from stepvideo_core.checkpoints.files import atomic_path
from stepvideo_core.errors import InvalidRequest

SUFFIXES = (".json", ".jsonl", ".csv", ".md", ".html")


def check_output(path: Path) -> None:
    """InvalidRequest unless `write_record` knows the format; before anything is measured."""
    if path.suffix and path.suffix not in SUFFIXES:
        raise InvalidRequest(
            f"--output {path} has none of the known endings {', '.join(SUFFIXES)}; a name without "
            "an ending is a folder for all of them and the figures"
        )


def write_record(record: OpsRecord, path: Path) -> None:
    """Write one file, or a folder with every format and each figure as SVG and PNG."""
    if path.suffix:
        write_text(path, _text(record, path.suffix))
        return
    for suffix in SUFFIXES:
        write_text(path / f"ops{suffix}", _text(record, suffix))
    for name, drawing in all_drawings(record).items():
        write_text(path / "figures" / f"{name}.svg", svg(drawing, standalone=True) + "\n")
        with atomic_path(path / "figures" / f"{name}.png") as temporary:
            write_png(drawing, temporary)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _text(record: OpsRecord, suffix: str) -> str:
    if suffix == ".jsonl":
        objects = [record.header(), *(row.as_json() for row in record.rows)]
        return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in objects)
    if suffix == ".csv":
        return csv_text(record)
    if suffix == ".md":
        return markdown(record)
    if suffix == ".html":
        return html_report(record)
    return json.dumps(record.as_json(), indent=1, ensure_ascii=False) + "\n"
