"""`stepvideo plan`: which implementation serves which call site, and why."""

from __future__ import annotations

from rich.table import Table

from stepvideo_core.cli import options
from stepvideo_core.cli.console import print_json, print_table, stderr


def plan(
    model: options.ModelOption = "tiny",
    shared: options.SharedOption = None,
    backend: options.BackendOption = "auto",
    ops: options.OpOption = None,
    no_fallback: options.FallbackOption = False,
    shadow: options.ShadowOption = None,
    device: options.DeviceOption = None,
    dtype: options.DTypeOption = None,
    json_output: options.JsonOption = False,
) -> None:
    """Show the dispatch plan of a model: every operator at every site, with reasons.

    Nothing is loaded: the models are built without weights, which shows every call site.
    """
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
