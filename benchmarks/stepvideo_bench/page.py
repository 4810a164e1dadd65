"""The frame of every HTML report: one file, no requests, light and dark, wide and narrow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from stepvideo_bench.canvas import palette_css

_CSS = """
*{box-sizing:border-box}
:root{color-scheme:light dark}
body{margin:0;background:var(--page);color:var(--text);
  font:15px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif}
main,header{max-width:62rem;margin:0 auto;padding:0 1.25rem}
header{padding-top:2.2rem}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 .3rem;letter-spacing:-.01em}
h2{font-size:1.2rem;margin:2.4rem 0 .5rem;padding-top:1.2rem;border-top:1px solid var(--grid)}
h3{font-size:1rem;margin:1.4rem 0 .4rem}
p{margin:.3rem 0 .9rem;max-width:46rem}
.lead,.note,figcaption,dt{color:var(--muted)}
.note,figcaption{font-size:.87rem}
code{font:0.92em ui-monospace,SFMono-Regular,Menlo,monospace;overflow-wrap:anywhere}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(11rem,1fr));gap:.75rem;
  margin:1.2rem 0}
.card{border:1px solid var(--grid);border-radius:8px;padding:.7rem .9rem}
.card b{display:block;font-size:1.3rem;font-weight:600;line-height:1.3}
.card span{color:var(--muted);font-size:.85rem}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1.2rem;font-size:.9rem;margin:0}
dd{margin:0;overflow-wrap:anywhere}
figure{margin:1rem 0}
figure svg{width:100%;height:auto;display:block;margin-bottom:.5rem}
.scroll{overflow-x:auto;margin:.6rem 0 1rem}
table{border-collapse:collapse;font-size:.86rem;font-variant-numeric:tabular-nums;width:100%}
th,td{padding:.32rem .6rem;text-align:left;border-bottom:1px solid var(--grid);
  vertical-align:top;white-space:nowrap}
th{font-weight:600;color:var(--muted)}
td.n,th.n{text-align:right}
td.w{white-space:normal;min-width:14rem}
tr.planned td:first-child{font-weight:600}
.ok{color:var(--s2)}.bad{color:var(--bad);font-weight:600}.off{color:var(--muted)}
a{color:var(--s0)}
details{margin:.5rem 0}summary{cursor:pointer;color:var(--s0)}
footer{max-width:62rem;margin:2.5rem auto;padding:0 1.25rem;color:var(--muted);font-size:.85rem}
@media (max-width:40rem){
  header{padding-top:1.4rem}h1{font-size:1.4rem}body{font-size:14px}
  dl{grid-template-columns:1fr}dd{margin-bottom:.4rem}
  figure{overflow-x:auto}figure svg{min-width:34rem}
}
@media print{details{display:block}.scroll{overflow:visible}}
"""


def page(title: str, lead: str, body: Iterable[str], footer: str) -> str:
    """A whole HTML document; `body` is HTML, everything else is text."""
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            f"<title>{escape(title)}</title>",
            f"<style>{palette_css(':root')}{_CSS}</style></head><body>",
            f'<header><h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p></header>',
            "<main>",
            *body,
            "</main>",
            f"<footer>{escape(footer)}</footer>",
            "</body></html>\n",
        ]
    )


def cards(pairs: Iterable[tuple[str, str]]) -> str:
    """Large figures with what they are."""
    inner = "".join(
        f'<div class="card"><b>{escape(value)}</b><span>{escape(name)}</span></div>'
        for name, value in pairs
    )
    return f'<div class="cards">{inner}</div>'


def facts(pairs: Iterable[tuple[str, object]]) -> str:
    """A list of names and values."""
    inner = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in pairs
    )
    return f"<dl>{inner}</dl>"


def cell(text: object, kind: str = "") -> str:
    """A table cell; kind: n for numbers, w for prose, ok, bad or off for a verdict."""
    return (
        f'<td class="{kind}">{escape(str(text))}</td>' if kind else f"<td>{escape(str(text))}</td>"
    )


def table(columns: Sequence[tuple[str, str]], rows: Iterable[str]) -> str:
    """A table that scrolls by itself; columns are (name, kind), rows are `<tr>` elements."""
    head = "".join(f'<th class="{kind}" scope="col">{escape(name)}</th>' for name, kind in columns)
    # Focusable, so that a keyboard can scroll it too.
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def figure(drawing: str, caption: str) -> str:
    """An inline SVG with its caption."""
    return f"<figure>{drawing}<figcaption>{escape(caption)}</figcaption></figure>"


def details(summary: str, inner: str) -> str:
    """Something that only some readers want."""
    return f"<details><summary>{escape(summary)}</summary>{inner}</details>"
