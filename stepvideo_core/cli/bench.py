"""`stepvideo bench`: measuring on this machine. The work is in the package `stepvideo_bench`."""

from __future__ import annotations

import typer

from stepvideo_core.cli import bench_compare, bench_model, bench_ops
from stepvideo_core.cli.guard import guarded

app = typer.Typer(help="Measure on this machine.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Measure on this machine."""


app.command("ops")(guarded(bench_ops.ops))
app.command("model")(guarded(bench_model.model))
app.command("compare")(guarded(bench_compare.compare))
