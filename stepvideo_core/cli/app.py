"""The `stepvideo` command and its subcommands, one file each."""

from __future__ import annotations

from typing import Annotated

import typer

from stepvideo_core import __version__
from stepvideo_core.cli import (
    backends,
    bench,
    convert,
    decode,
    doctor,
    download,
    eval,
    evidence,
    inspect,
    parity,
    plan,
    run,
    train,
    vae,
)
from stepvideo_core.cli.guard import guarded

app = typer.Typer(
    name="stepvideo",
    help=(
        "Generate video with the Step-Video models on whatever hardware is there.\n\n"
        'Start with [bold]stepvideo run "a red circle moves right"[/bold]; '
        "[bold]stepvideo doctor[/bold] says what this machine can do and what is missing."
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"stepvideo {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


_GENERATE, _EXAMINE, _TRAIN, _FILES = "Generate", "Examine", "Train", "Checkpoints"

app.command("run", rich_help_panel=_GENERATE)(guarded(run.run))
app.command("decode", rich_help_panel=_GENERATE)(guarded(decode.decode))
app.add_typer(vae.app, name="vae", rich_help_panel=_GENERATE)
app.command("plan", rich_help_panel=_EXAMINE)(guarded(plan.plan))
app.command("backends", rich_help_panel=_EXAMINE)(guarded(backends.backends))
app.command("doctor", rich_help_panel=_EXAMINE)(guarded(doctor.doctor))
app.command("parity", rich_help_panel=_EXAMINE)(guarded(parity.parity))
app.command("eval", rich_help_panel=_EXAMINE)(guarded(eval.evaluate))
app.command("evidence", rich_help_panel=_EXAMINE)(guarded(evidence.evidence))
app.add_typer(bench.app, name="bench", rich_help_panel=_EXAMINE)
app.command("download", rich_help_panel=_FILES)(guarded(download.download))
app.command("inspect", rich_help_panel=_FILES)(guarded(inspect.inspect))
app.command("train", rich_help_panel=_TRAIN)(guarded(train.train))
app.add_typer(convert.app, name="convert", rich_help_panel=_FILES)
