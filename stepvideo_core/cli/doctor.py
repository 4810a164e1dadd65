"""`stepvideo doctor`: what this machine has, what is missing, and the command that mends it."""

from __future__ import annotations

import typer
from rich.markup import escape
from rich.table import Table

from stepvideo_core.cli import options
from stepvideo_core.cli.console import print_json, print_table, stderr


def doctor(
    backend: options.BackendOption = "auto",
    device: options.DeviceOption = None,
    json_output: options.JsonOption = False,
) -> None:
    """Check the environment and run every operator of the default plan against float64.

    Exits with 2 if something is broken; what is merely absent is only said.
    """
    from stepvideo_core.diagnosis import Status, examine

    with stderr().status("examining this machine"):
        findings = examine(backend=backend, device=device)
    broken = [finding for finding in findings if finding.status is Status.BROKEN]
    if json_output:
        print_json({"ok": not broken, "findings": [finding.as_json() for finding in findings]})
        raise typer.Exit(2 if broken else 0)
    marks = {
        Status.OK: "[green]ok[/]",
        Status.ABSENT: "[yellow]absent[/]",
        Status.BROKEN: "[red]broken[/]",
    }
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column("area", style="bold")
    table.add_column("subject")
    table.add_column("state")
    table.add_column("detail", overflow="fold")
    area = ""
    for finding in findings:
        detail = escape(finding.detail)
        if finding.mend:
            detail += f"\n[cyan]{escape(finding.mend)}[/]"
        table.add_row(
            "" if finding.area == area else finding.area,
            finding.subject,
            marks[finding.status],
            detail,
        )
        area = finding.area
    print_table(table)
    if broken:
        stderr().print(f"[red]{len(broken)} broken[/]: see the commands above")
        raise typer.Exit(2)
    stderr().print("[green]everything that is here works[/]")
