"""`stepvideo backends`: what is installed, what works here, and what does not and why."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from stepvideo_core.cli import options
from stepvideo_core.cli.console import print_json, print_table


def backends(json_output: options.JsonOption = False) -> None:
    """List the backends, built in and from plugins, with what each implements here."""
    from stepvideo_core.plugins import load_registry
    from stepvideo_core.testing.parity import device_of, refused_everywhere

    registry = load_registry()
    rows: list[dict[str, Any]] = []
    for backend in registry:
        reasons = registry.why_not(backend.name)
        implements: dict[str, list[str]] = {}
        refusals: dict[str, list[str]] = {}
        for impl in registry.implementations(backend.name):
            refused = refused_everywhere(impl, device_of(backend))
            if refused:
                refusals[f"{impl.op.name}={backend.name}:{impl.name}"] = refused
            else:
                implements.setdefault(impl.op.name, []).append(impl.name)
        rows.append(
            {
                "name": backend.name,
                "device_type": backend.device_type,
                "version": backend.version,
                "summary": backend.summary,
                "available": not reasons,
                "reasons": reasons,
                "implements": implements,
                "refusals": refusals,
                "settings": [] if reasons else backend.settings(),
            }
        )
    if json_output:
        print_json({"backends": rows, "failures": registry.failures})
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("backend", "device", "version", "here", "implements"):
        table.add_column(column, overflow="fold")
    for row in rows:
        implements_text = ", ".join(
            f"{op} ({', '.join(names)})" for op, names in row["implements"].items()
        )
        refused = [
            f"not {address}: {'; '.join(texts)}" for address, texts in row["refusals"].items()
        ]
        table.add_row(
            row["name"],
            row["device_type"],
            row["version"],
            "[green]yes[/]" if row["available"] else "[yellow]no[/]",
            "\n".join(
                [
                    implements_text or escape("; ".join(row["reasons"])),
                    *map(escape, refused),
                    *(escape(f"setting {line}") for line in row["settings"]),
                ]
            ),
        )
    for name, failure in registry.failures.items():
        table.add_row(name, "", "", "[red]failed[/]", escape(failure))
    print_table(table)
