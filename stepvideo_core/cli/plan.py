"""`stepvideo plan`: which implementation serves which call site, and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from stepvideo_core.cli import options
from stepvideo_core.cli.console import print_json, print_table, stderr
from stepvideo_core.cli.explain import ExplainRequest, explain_plan
from stepvideo_core.errors import InvalidRequest

if TYPE_CHECKING:
    from stepvideo_core.request import Choices

_EXPLAIN = "Explain"


def plan(
    model: options.ModelOption = "tiny",
    shared: options.SharedOption = None,
    backend: options.BackendOption = "auto",
    ops: options.OpOption = None,
    no_fallback: options.FallbackOption = False,
    shadow: options.ShadowOption = None,
    device: options.DeviceOption = None,
    dtype: options.DTypeOption = None,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Predict time and memory of a run. --model may then also be t2v, t2v-turbo or "
            "ti2v, without a checkpoint.",
            rich_help_panel=_EXPLAIN,
        ),
    ] = False,
    assume: Annotated[
        str | None,
        typer.Option(
            "--assume",
            help="Explain for a device that is not here: a100, h100, h200, h20, rtx4090, rtx5090, "
            "910b2, 910b3.",
            rich_help_panel=_EXPLAIN,
        ),
    ] = None,
    measured: Annotated[
        list[Path] | None,
        typer.Option(
            "--measured",
            help="A record of `bench ops` (shares of the roof to use) or `bench model` (times to "
            "check against). Repeatable.",
            rich_help_panel=_EXPLAIN,
        ),
    ] = None,
    frames: Annotated[int | None, typer.Option("--frames", rich_help_panel=_EXPLAIN)] = None,
    height: Annotated[int | None, typer.Option("--height", rich_help_panel=_EXPLAIN)] = None,
    width: Annotated[int | None, typer.Option("--width", rich_help_panel=_EXPLAIN)] = None,
    steps: Annotated[int | None, typer.Option("--steps", rich_help_panel=_EXPLAIN)] = None,
    cfg_scale: Annotated[
        float | None, typer.Option("--cfg-scale", rich_help_panel=_EXPLAIN)
    ] = None,
    json_output: options.JsonOption = False,
) -> None:
    """Show the dispatch plan of a model: every operator at every site, with reasons.

    Nothing is loaded: the models are built without weights, which shows every call site. With
    --explain: what a run would take, stage by stage, and what to change.
    """
    choices: Choices = {
        "frames": frames,
        "height": height,
        "width": width,
        "steps": steps,
        "cfg_scale": cfg_scale,
    }
    if explain:
        explain_plan(
            ExplainRequest(
                model=model,
                assume=assume,
                choices=choices,
                measured=measured or [],
                backend=backend,
                ops=ops or [],
                allow_fallback=not no_fallback,
                device=device,
                dtype=None if dtype is None else dtype.value,
            ),
            json_output=json_output,
        )
        return
    if assume or measured or any(value is not None for value in choices.values()):
        raise InvalidRequest(
            "--assume, --measured and the sizes of a video say something about --explain only: "
            "add it"
        )
    pipe = options.open_pipeline(
        model,
        backend=backend,
        ops=ops,
        no_fallback=no_fallback,
        shadow=shadow,
        device=device,
        dtype=dtype,
        shared=shared,
    )
    rows = pipe.plan.as_json()
    dtype_name = str(pipe.dtype).removeprefix("torch.")
    if json_output:
        print_json(
            {
                "model": str(pipe.layout.root),
                "device": str(pipe.device),
                "dtype": dtype_name,
                "backend": backend,
                "sites": rows,
                "settings": pipe.plan.settings(),
            }
        )
        return
    stderr().print(f"{pipe.layout.root} on {pipe.device} in {dtype_name}", soft_wrap=True)
    for name, lines in pipe.plan.settings().items():
        for line in lines:
            stderr().print(f"{name} setting {line}", soft_wrap=True, markup=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("op", "site", "implementation", "not taken"):
        table.add_column(column, overflow="fold")
    for row in sorted(rows, key=lambda row: (row["op"], row["site"])):
        implementation = row["impl"]
        if "shadow" in row:
            implementation += f" (shadow {row['shadow']})"
        table.add_row(row["op"], row["site"], implementation, "\n".join(row["reasons"]))
    print_table(table)
