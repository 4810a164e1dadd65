"""Reports are well-formed, ask the network for nothing, and are readable in the dark."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from PIL import Image

from stepvideo_bench import canvas
from stepvideo_bench.canvas import DARK, LIGHT, Dot, Drawing, Line, Rect, Text, svg, write_png
from stepvideo_bench.charts import all_drawings, bars, latency, roofline
from stepvideo_bench.ops_report import html_report
from stepvideo_bench.parity_report import parity_page
from stepvideo_bench.rows import OpsRecord, Row
from stepvideo_bench.tables import csv_text, markdown, row_texts
from stepvideo_bench.units import format_bandwidth, format_rate, format_seconds
from stepvideo_core.dispatch import Backend, BackendRegistry
from stepvideo_core.ops import CONTRACTS, OpImpl
from stepvideo_core.plugins import load_registry
from stepvideo_core.testing import run_parity
from stepvideo_core.testing.evidence import parity_record
from stepvideo_reference.backend import reference_backend

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Outline(HTMLParser):
    """Checks that elements nest, and collects ids, links and what would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            elif name == "href" and (value or "").startswith("#"):
                self.links.append((value or "")[1:])
            elif name in ("src", "href", "srcset", "data", "action"):
                self.fetched.append(f"{tag} {name}={value}")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes something else"


def outline(html: str) -> Outline:
    parser = Outline()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    assert len(set(parser.ids)) == len(parser.ids)
    assert set(parser.links) <= set(parser.ids)
    assert parser.fetched == [] and "script" not in parser.tags
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", html)
    assert "prefers-color-scheme: dark" in html and "width=device-width" in html
    return parser


def row(**changes: object) -> Row:
    base = Row(
        op="linear",
        site="dit.self",
        preset="tiny",
        tokens=288,
        shape="1x288x256 768x256",
        count=3,
        impl="reference:eager",
        dtype="float32",
        device="cpu",
        status="measured",
        flops=113_246_208,
        num_bytes=1_966_080,
        bound="compute",
        roof_s=1e-3,
        samples=(2e-3, 2e-3, 3e-3),
        median_s=2e-3,
        p20_s=2e-3,
        p80_s=3e-3,
        tflops=0.05,
        gbs=1.0,
        ceiling_pct=50.0,
        speedup=1.0,
        max_abs_error=1e-6,
        rel_error=1e-7,
        oracle="float64",
        peak_bytes=1 << 20,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def record(*rows: Row) -> OpsRecord:
    return OpsRecord(
        environment={
            "when": "2026-01-02T03:04:05+00:00",
            "machine": {"device": "cpu", "cpu": "A <fast> CPU", "threads": 1},
            "load": 0.1,
            "revision": None,
            "versions": {"torch": "2.13"},
            "devices": [],
        },
        ceilings={
            "flops_per_second": 1e11,
            "bytes_per_second": 1e10,
            "gemm": "reference:onednn",
            "datasheet": None,
        },
        settings={"cache": "cold"},
        plan=[],
        rows=rows,
    )


def test_the_report_of_a_real_run(tiny_record: OpsRecord) -> None:
    parser = outline(html_report(tiny_record))
    assert parser.tags.count("svg") >= 10
    assert {"linear", "attention", "causal_conv3d"} <= set(parser.ids)


def test_what_was_not_measured_is_said_with_its_reasons() -> None:
    skipped = row(
        status="skipped", median_s=None, samples=(), ceiling_pct=None, reasons=("needs <9> GiB",)
    )
    html = html_report(record(row(), skipped))
    outline(html)
    assert "Not measured" in html and "needs &lt;9&gt; GiB" in html
    assert "A &lt;fast&gt; CPU" in html
    assert "needs <9> GiB" in markdown(record(row(), skipped))
    outline(html_report(record(skipped)))


def test_a_figure_above_the_roof_is_flagged_and_no_win() -> None:
    doubtful = row(above_ceiling=True, ceiling_pct=180.0, speedup=9.0)
    texts = row_texts(doubtful)
    assert texts["of roof"] == "180 % (!)" and texts["speed-up"] == ""
    assert "9.00 x" not in html_report(record(doubtful)) + markdown(record(doubtful))
    dots = [shape for shape in roofline(record(doubtful)).shapes if isinstance(shape, Dot)]
    assert [dot.color for dot in dots] == ["bad"]
    assert "180.0" in csv_text(record(doubtful))


def test_every_figure_is_an_svg_and_a_png(tmp_path: Path) -> None:
    longer = row(tokens=1152, preset="small", median_s=8e-3, impl="mine:fast", planned=True)
    drawings = all_drawings(record(row(), longer))
    assert set(drawings) == {"roofline", "bars-linear", "latency-linear-dit.self"}
    for name, drawing in drawings.items():
        root = ElementTree.fromstring(svg(drawing, standalone=True))
        assert root.get("aria-label") == drawing.label
        write_png(drawing, tmp_path / f"{name}.png")
        image = Image.open(tmp_path / f"{name}.png")
        assert image.size == (round(2 * drawing.width), round(2 * drawing.height))
        assert len(image.getcolors(1 << 24) or []) > 5, "nothing was painted"
        for shape in drawing.shapes:
            points = shape.points if isinstance(shape, Line) else [(shape.x, shape.y)]
            for x, y in points:
                assert -1 <= x <= drawing.width + 1 and -1 <= y <= drawing.height + 1, shape


def test_bars_do_not_overlap() -> None:
    rows = [row(impl=f"b:{index}", median_s=1e-3 * (index + 1)) for index in range(4)]
    shapes = bars(rows, "linear").shapes
    tops = [shape.y for shape in shapes if isinstance(shape, Rect)]
    assert tops == sorted(tops) and len(tops) == 4
    assert min(b - a for a, b in itertools.pairwise(tops)) >= 12


def test_one_length_is_no_line() -> None:
    assert latency([row(), row(impl="b:x")], "linear", "dit.self") is None


def test_an_empty_record_has_no_figure_but_says_so() -> None:
    texts = [shape.text for shape in roofline(record()).shapes if isinstance(shape, Text)]
    assert texts == ["no measured operator with products"]


def _contrast(first: str, second: str) -> float:
    """WCAG's contrast ratio of two colours."""

    def luminance(color: str) -> float:
        parts = [int(color[index : index + 2], 16) / 255 for index in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_colours_can_be_told_from_the_page(palette: dict[str, str]) -> None:
    for name in ("text", "muted", "bad"):
        assert _contrast(palette[name], palette["page"]) >= 4.5, name
    for index in range(canvas.NUM_SERIES):
        assert _contrast(palette[f"s{index}"], palette["page"]) >= 3, index


def test_a_drawing_escapes_what_it_writes() -> None:
    drawing = Drawing(10, 10, 'a "label" <b>')
    drawing.add(Text(1, 1, "<&>"), Rect(0, 0, 1, 1, "s0", "a<b"))
    assert ElementTree.fromstring(svg(drawing, standalone=False)) is not None


def test_the_parity_report_links_to_its_cases() -> None:
    registry = BackendRegistry()
    registry.add(reference_backend())
    gelu = torch.nn.functional.gelu
    impl = OpImpl(op=CONTRACTS["gelu_tanh"], name="off", fn=lambda x: gelu(x) * 1.01)
    registry.add(Backend(name="mine", device_type="cpu", why_not=list, load=lambda: [impl]))
    results = list(run_parity(registry, ops=["gelu_tanh"], dtypes=[torch.float32, torch.float64]))
    html = parity_page(results, parity_record(results, registry))
    parser = outline(html)
    assert len(parser.ids) == len(results)
    assert "<h2>Failed</h2>" in html and "exceeds the budget" in html
    good = list(run_parity(load_registry(), backends=["numpy64"], ops=["rms_norm"]))
    assert "<h2>Failed</h2>" not in parity_page(good, parity_record(good, load_registry()))


def test_a_browser_needs_no_sideways_scrolling(tiny_record: OpsRecord, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium here; structure and colours are tested above")
    probe = "<script>document.title=[document.documentElement.scrollWidth,innerWidth]</script>"
    page = tmp_path / "report.html"
    page.write_text(html_report(tiny_record).replace("</body>", probe + "</body>"))
    for width in (1280, 500):
        done = subprocess.run(
            [
                *(browser, "--headless=new", "--no-sandbox", "--disable-gpu"),
                *(f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900"),
                *("--dump-dom", page.as_uri()),
            ],
            capture_output=True,
            text=True,
            timeout=120,
        )
        title = re.search(r"<title>(\d+),(\d+)</title>", done.stdout)
        assert title is not None, done.stderr[-500:]
        assert int(title[1]) <= int(title[2]), f"{title[1]} px of content in {title[2]}"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (7200.0, "2.0 h"),
        (300.0, "5.0 min"),
        (12.34, "12.3 s"),
        (0.371, "371 ms"),
        (1.234e-5, "12.3 µs"),
        (9.999e-4, "1,000 µs"),
    ],
)
def test_seconds(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_rates() -> None:
    assert format_rate(7.98e14) == "798 T"
    assert format_rate(12.0) == "12 "
    assert format_bandwidth(3e12) == "3,000 GB/s"
