"""The report as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table

_LOWEST_VALUES, _MOST_CONFUSIONS = 8, 8


def report_tables(report: dict[str, Any]) -> Iterator[Table]:
    """Everything in a report that is worth a glance, section by section."""
    if "generation" in report:
        yield from _adherence_tables(report["generation"]["adherence"])
        yield _figures("generated videos", _generation_figures(report["generation"]))
    if "unconditional" in report:
        yield _figures("without a prompt", _unconditional_figures(report["unconditional"]))
    if "reconstruction" in report:
        section = report["reconstruction"]
        yield _figures("reconstructed clips", _reconstruction_figures(section))
        if section["adherence"] is not None:
            yield _proportions("still right after the VAE", {"": section["adherence"]})


def _adherence_tables(adherence: dict[str, Any]) -> Iterator[Table]:
    if not adherence["judged"]:
        return
    yield _proportions("right", {"": adherence, **adherence["by_language"]})
    lowest = [
        (found["rate"], attribute, value, found)
        for attribute, values in adherence["by_value"].items()
        for value, found in values.items()
        if found["rate"] < 1
    ]
    lowest.sort(key=lambda row: row[:3])
    if lowest:
        table = _table("lowest values", "named", "right", "95 % interval")
        for _, attribute, value, found in lowest[:_LOWEST_VALUES]:
            table.add_row(attribute, value, _rate(found), _interval(found))
        yield table
    if adherence["confusions"]:
        table = _table("taken for another", "named", "seen", "times")
        for row in adherence["confusions"][:_MOST_CONFUSIONS]:
            table.add_row(row["attribute"], row["named"], row["seen"], str(row["count"]))
        yield table


def _proportions(title: str, groups: dict[str, dict[str, Any]]) -> Table:
    """Rows: everything, then each attribute; columns: all, then each further group."""
    first = next(iter(groups.values()))
    table = _table(title, "videos", "95 % interval", *(name for name in groups if name))
    rows = {"everything": [group["overall"] for group in groups.values()]}
    rows |= {
        attribute: [group["by_attribute"].get(attribute) for group in groups.values()]
        for attribute in first["by_attribute"]
    }
    for name, found in rows.items():
        others = ["" if each is None else _percent(each["rate"]) for each in found[1:]]
        table.add_row(name, _rate(found[0]), _interval(found[0]), *others)
    return table


def _generation_figures(section: dict[str, Any]) -> dict[str, str]:
    return {
        "videos": str(section["videos"]),
        "change from frame to frame": _number(section["smoothness"]["mean"], ".4f"),
        "change at seams / elsewhere": _number(section["smoothness"]["seam_ratio"], ".2f"),
        "diversity over seeds (RMS)": _number(section["diversity"], ".3f"),
    }


def _unconditional_figures(section: dict[str, Any]) -> dict[str, str]:
    novelty = section["novelty"]
    return {
        "videos": str(section["videos"]),
        "distance to the nearest training clip": _number(novelty["median_distance"], ".3f"),
        "the same of unseen clips": _number(novelty["median_distance_of_controls"], ".3f"),
        "closer than every unseen clip": str(novelty["closer_than_every_control"]),
        "diversity (RMS)": _number(section["diversity"], ".3f"),
    }


def _reconstruction_figures(section: dict[str, Any]) -> dict[str, str]:
    changes = section["smoothness"]
    return {
        "clips": str(section["clips"]),
        "PSNR": f"{_number(section['psnr'], '.2f')} dB",
        "lowest PSNR": f"{_number(section['psnr_lowest'], '.2f')} dB",
        "PSNR beside seams": f"{_number(section['psnr_seams'], '.2f')} dB",
        "SSIM": _number(section["ssim"], ".4f"),
        "change at seams / elsewhere": _number(changes["reconstructed"]["seam_ratio"], ".2f"),
        "the same before": _number(changes["original"]["seam_ratio"], ".2f"),
    }


def _figures(title: str, figures: dict[str, str]) -> Table:
    table = _table(title, "")
    for name, value in figures.items():
        if not value.startswith("-"):  # nothing to tell: a single chunk has no seams
            table.add_row(name, value)
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(title)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _rate(found: dict[str, Any]) -> str:
    return f"{found['successes']}/{found['count']}  {_percent(found['rate'])}"


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.1%}"


def _interval(found: dict[str, Any]) -> str:
    if found["interval95"] is None:
        return "-"
    low, high = found["interval95"]
    return f"{low:.1%} to {high:.1%}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
