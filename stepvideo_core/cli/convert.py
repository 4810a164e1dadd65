"""`stepvideo convert`: writing checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stepvideo_core.cli import options
from stepvideo_core.cli.console import note, print_json, stderr
from stepvideo_core.cli.guard import guarded

app = typer.Typer(
    help="Write checkpoints.", no_args_is_help=True, context_settings={"max_content_width": 100}
)


@app.callback()
def _group() -> None:
    """Write checkpoints."""


@app.command("untrained")
@guarded
def untrained(
    target: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    preset: Annotated[str, typer.Option("--preset", help="Sizes: tiny or tiny-ti2v.")] = "tiny",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the random weights.")] = 0,
    json_output: options.JsonOption = False,
) -> None:
    """Write a small randomly initialised checkpoint in the official layout.

    For tests and benchmarks: it runs like the real model, but its videos are noise.
    """
    from stepvideo_core.checkpoints.untrained import write_untrained
    from stepvideo_core.config import PRESETS
    from stepvideo_core.errors import InvalidRequest

    if preset not in PRESETS:
        raise InvalidRequest(f"--preset {preset!r} is none of {', '.join(PRESETS)}")
    write_untrained(target, PRESETS[preset], seed=seed, preset=preset)
    if json_output:
        print_json({"output": str(target), "preset": preset, "seed": seed, "trained": False})
        return
    note("this model is untrained: its videos are noise, whatever the prompt")
    stderr().print(f"{target}", soft_wrap=True)
