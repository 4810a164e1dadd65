"""`stepvideo eval`: how good a model is, in numbers. The package `stepvideo_eval` does the work."""

from __future__ import annotations

import shlex
import time
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from stepvideo_core.cli import options
from stepvideo_core.cli.console import (
    ProgressObserver,
    note,
    print_json,
    print_table,
    stderr,
    stdout,
)
from stepvideo_core.cli.options import NumericsChoice
from stepvideo_core.errors import InvalidRequest, RunInterrupted

_WHAT = "What to measure"
_DEFAULT_HELD_OUT = 20
_DEFAULT_CLIPS = 40


class World(str, Enum):
    tiny = "tiny"
    whole = "whole"


def evaluate(
    model: options.ModelOption = "tiny",
    prompts: Annotated[
        Path | None,
        typer.Option("--prompts", help="A file with a prompt per line.", rich_help_panel=_WHAT),
    ] = None,
    held_out: Annotated[
        int | None,
        typer.Option(
            "--held-out",
            min=1,
            help="So many prompts in each language, of shapes, colours and motions that were not "
            "shown together in training.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    language: Annotated[
        str, typer.Option("--language", help="Of --held-out.", rich_help_panel=_WHAT)
    ] = "en,zh",
    world: Annotated[
        World,
        typer.Option(
            "--world",
            help="The part of the toy world that held-out prompts and clips come from.",
            rich_help_panel=_WHAT,
        ),
    ] = World.tiny,
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, help="Videos per prompt.", rich_help_panel=_WHAT)
    ] = 1,
    unconditional: Annotated[
        int,
        typer.Option(
            "--unconditional",
            min=0,
            help="So many videos of no prompt, compared with training clips: are they copies?",
            rich_help_panel=_WHAT,
        ),
    ] = 0,
    references: Annotated[
        int,
        typer.Option(
            "--references",
            min=1,
            help="Training clips that --unconditional compares with.",
            rich_help_panel=_WHAT,
        ),
    ] = 2000,
    reconstruct: Annotated[
        str | None,
        typer.Option(
            "--reconstruct",
            metavar="DIR|held-out",
            help="What the VAE keeps of the videos of a folder, or of held-out clips.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    clips: Annotated[
        int,
        typer.Option("--clips", min=1, help="Of --reconstruct held-out.", rich_help_panel=_WHAT),
    ] = _DEFAULT_CLIPS,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            help="Of the first video; the others have the next ones. Default 1234.",
            rich_help_panel=options.VIDEO_PANEL,
        ),
    ] = None,
    frames: options.FramesOption = None,
    height: options.HeightOption = None,
    width: options.WidthOption = None,
    steps: options.StepsOption = None,
    cfg_scale: options.GuidanceOption = None,
    time_shift: options.TimeShiftOption = None,
    negative_prompt: Annotated[
        str | None,
        typer.Option(
            "--negative-prompt", help="'' switches it off.", rich_help_panel=options.VIDEO_PANEL
        ),
    ] = None,
    positive_suffix: Annotated[
        str | None,
        typer.Option(
            "--positive-suffix", help="'' switches it off.", rich_help_panel=options.VIDEO_PANEL
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder for videos, contact sheet and report. With the folder of an interrupted "
            "call, what it finished is used.",
        ),
    ] = None,
    dtype: options.DTypeOption = None,
    numerics: options.NumericsOption = NumericsChoice.accurate,
    backend: options.BackendOption = "auto",
    ops: options.OpOption = None,
    no_fallback: options.FallbackOption = False,
    device: options.DeviceOption = None,
    json_output: options.JsonOption = False,
) -> None:
    """Generate videos of many prompts and measure what came out.

    For prompts of the toy world, whose videos a program can judge, in how many of them colour,
    shape, motion and whatever else the prompt names are right; for all others videos, a contact
    sheet and the measures that need no judge. The settings that you leave out are the model's own.
    """
    from stepvideo_core.progress import StageLog
    from stepvideo_core.request import DEFAULT_SEED
    from stepvideo_eval.evaluation import REPORT, Evaluation
    from stepvideo_eval.prompts import held_out as held_out_prompts
    from stepvideo_eval.prompts import parse_languages, read_prompts
    from stepvideo_eval.request import EvalRequest
    from stepvideo_eval.tables import report_tables

    started = time.perf_counter()
    if prompts is not None and held_out is not None:
        raise InvalidRequest("give either --prompts or --held-out")
    first_seed = DEFAULT_SEED if seed is None else seed
    languages = parse_languages(language)
    asked = prompts is not None or held_out is not None or reconstruct or unconditional
    if not asked:
        if model != "tiny":
            raise InvalidRequest(
                "there is nothing to measure: give --prompts FILE, or --held-out N for a model of "
                "the toy world"
            )
        held_out = _DEFAULT_HELD_OUT
    chosen = [] if prompts is None else read_prompts(prompts)
    if held_out is not None:
        chosen = held_out_prompts(held_out, languages, first_seed, world.value)
    pipe = options.open_pipeline(
        model,
        backend=backend,
        ops=ops,
        no_fallback=no_fallback,
        shadow=None,
        device=device,
        dtype=dtype,
        numerics=numerics,
    )
    folder = output or Path("outputs") / f"eval-{datetime.now():%Y%m%d-%H%M%S}"
    if not pipe.layout.is_trained:
        note("this model is untrained: what is measured is noise, whatever the prompt")
    with ProgressObserver() as observer:
        evaluation = Evaluation(
            pipe,
            EvalRequest(
                output=folder,
                world=world.value,
                seed=first_seed,
                choices={
                    "negative_prompt": negative_prompt,
                    "positive_suffix": positive_suffix,
                    "frames": frames,
                    "height": height,
                    "width": width,
                    "steps": steps,
                    "cfg_scale": cfg_scale,
                    "time_shift": time_shift,
                },
                prompts=chosen,
                seeds=seeds,
                unconditional=unconditional,
                references=references,
                reconstruction=reconstruct,
                clips=clips,
            ),
            StageLog(pipe.device, observer),
            note,
        )
        try:
            report = evaluation.run()
        except KeyboardInterrupt:
            raise RunInterrupted(
                f"interrupted; {evaluation.num_latents} sampled videos are kept in {folder}: the "
                f"same command with --output {shlex.quote(str(folder))} goes on from there"
            ) from None
    if json_output:
        print_json(report)
        return
    for table in report_tables(report):
        print_table(table)
        stdout().print()
    generation = report.get("generation")
    if generation is not None and generation["not_judged_because"] is not None:
        judged = generation["adherence"]
        total = judged["judged"] + judged["not_judged"]
        note(
            f"the adherence of {judged['not_judged']} of {total} videos was not judged: "
            f"{generation['not_judged_because']}"
        )
    stderr().print(f"[green]done[/] in {time.perf_counter() - started:.1f} s", highlight=False)
    stderr().print(f"{folder / REPORT}", soft_wrap=True)
