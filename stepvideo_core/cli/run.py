"""`stepvideo run`: from a prompt to a video file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from stepvideo_core.cli import options
from stepvideo_core.cli.console import (
    ProgressObserver,
    note,
    print_json,
    print_table,
    stage_table,
    stderr,
)
from stepvideo_core.cli.naming import DEFAULT_TEMPLATE, default_output
from stepvideo_core.cli.options import HubChoice, NumericsChoice, OffloadChoice
from stepvideo_core.cli.report import (
    backends_used,
    print_shadow,
    report_dry_run,
    report_result,
    summary,
)
from stepvideo_core.cli.seeds import parse_seeds
from stepvideo_core.errors import InvalidRequest
from stepvideo_core.prompts import JSON_LINES, PromptLine, read_prompts
from stepvideo_core.request import Choices

_OUTPUT, _MEMORY = "Output", "Memory"


def run(
    prompt_argument: Annotated[
        str | None, typer.Argument(metavar="PROMPT", help="What the video shows.")
    ] = None,
    model: options.ModelOption = "tiny",
    preset: options.PresetOption = None,
    shared: options.SharedOption = None,
    hub: options.HubOption = HubChoice.huggingface,
    prompt_option: Annotated[
        str | None, typer.Option("--prompt", "-p", help="The prompt, as an option.")
    ] = None,
    prompt_file: Annotated[
        Path | None,
        typer.Option("--prompt-file", help="A prompt per line, or .jsonl with settings."),
    ] = None,
    negative_prompt: Annotated[
        str | None,
        typer.Option("--negative-prompt", help="Default: the official one. '' switches it off."),
    ] = None,
    positive_suffix: Annotated[
        str | None,
        typer.Option("--positive-suffix", help="Default: the official one. '' switches it off."),
    ] = None,
    truncate_prompt: Annotated[
        bool, typer.Option("--truncate-prompt", help="Cut a prompt that is too long.")
    ] = False,
    image: Annotated[
        Path | None, typer.Option("--image", help="The first frame, of an image-to-video model.")
    ] = None,
    motion_score: Annotated[
        float | None,
        typer.Option(
            "--motion-score", help="How much moves, image-to-video: 2 calm, 20 strong. Default 5."
        ),
    ] = None,
    frames: options.FramesOption = None,
    height: options.HeightOption = None,
    width: options.WidthOption = None,
    steps: options.StepsOption = None,
    cfg_scale: options.GuidanceOption = None,
    time_shift: options.TimeShiftOption = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            help="Same seed, same noise, on every device. Default 1234.",
            rich_help_panel=options.VIDEO_PANEL,
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            "--seeds",
            metavar="N,N,...",
            help="A video for each.",
            rich_help_panel=options.VIDEO_PANEL,
        ),
    ] = None,
    num_seeds: Annotated[
        int | None,
        typer.Option(
            "--num-seeds",
            min=1,
            help="So many videos of each prompt, with seeds that count up from --seed.",
            rich_help_panel=options.VIDEO_PANEL,
        ),
    ] = None,
    latents: Annotated[
        Path | None,
        typer.Option(
            "--latents",
            help="Initial noise: a safetensors file with `latents` [1, F, C, h, w].",
            rich_help_panel=options.VIDEO_PANEL,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help=".mp4, .webm, .gif, .safetensors, or a folder for PNG frames. Several videos "
            "need fields: out/{index:03}-{slug}-{seed}.mp4; there is {line}, too.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    crop: Annotated[
        bool,
        typer.Option(
            "--crop/--no-crop",
            help="The official centre crop to 960x540 of 540p videos.",
            rich_help_panel=_OUTPUT,
        ),
    ] = True,
    denoise_filter: Annotated[
        bool | None,
        typer.Option(
            "--denoise-filter/--no-denoise-filter",
            help="The official temporal filter on the saved video. Default: on for official "
            "models.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    keep_latents: Annotated[
        bool,
        typer.Option(
            "--keep-latents", help="Keep the final latents file.", rich_help_panel=_OUTPUT
        ),
    ] = False,
    dtype: options.DTypeOption = None,
    numerics: options.NumericsOption = NumericsChoice.accurate,
    offload: Annotated[
        OffloadChoice,
        typer.Option(
            "--offload",
            help="auto: one model in memory at a time; none: keep all.",
            rich_help_panel=_MEMORY,
        ),
    ] = OffloadChoice.auto,
    memory_limit: Annotated[
        str | None,
        typer.Option(
            "--memory-limit",
            metavar="SIZE",
            help="Refuse a run that needs more, e.g. 12GiB.",
            rich_help_panel=_MEMORY,
        ),
    ] = None,
    backend: options.BackendOption = "auto",
    ops: options.OpOption = None,
    no_fallback: options.FallbackOption = False,
    shadow: options.ShadowOption = None,
    device: options.DeviceOption = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what would run and whether it fits, and stop."),
    ] = False,
    json_output: options.JsonOption = False,
) -> None:
    """Generate a video from a prompt, or many from a file of prompts.

    The settings that you leave out are the model's own. A run never loses finished work: the final
    latents are on disk before decoding starts, and `stepvideo decode` goes on from there. A batch
    is checked as a whole before it starts; run it again to go on where it stopped. A video that
    fails does not end it: it exits with 1 when it is through.
    """
    _refuse_what_comes_later(offload)
    lines, several = _prompts(prompt_argument, prompt_option, prompt_file)
    several = several or seeds is not None or num_seeds is not None
    if several and latents is not None:
        raise InvalidRequest("--latents is the noise of one video; leave it out for several")
    all_seeds = parse_seeds(seed, seeds, num_seeds)
    started = time.perf_counter()

    from stepvideo_core.cli.generate import Finishing, generate_file
    from stepvideo_core.cli.jobs import plan_batch, raw_bytes
    from stepvideo_core.latents_file import read_latents
    from stepvideo_core.progress import StageLog
    from stepvideo_core.video import check_output

    initial = None if latents is None else read_latents(latents)[0]
    pipe = options.open_pipeline(
        model,
        backend=backend,
        ops=ops,
        no_fallback=no_fallback,
        shadow=shadow,
        device=device,
        dtype=dtype,
        numerics=numerics,
        offload=offload.value,
        preset=preset,
        shared=shared,
        hub=None if dry_run else hub,
    )
    filtered = pipe.config.sampling.denoise_filter if denoise_filter is None else denoise_filter
    finishing = Finishing(crop=crop, denoise_filter=filtered)
    choices: Choices = {
        "negative_prompt": negative_prompt,
        "positive_suffix": positive_suffix,
        "frames": frames,
        "height": height,
        "width": width,
        "steps": steps,
        "cfg_scale": cfg_scale,
        "time_shift": time_shift,
        "image": image,
        "motion_score": motion_score,
    }
    if several:
        from stepvideo_core.cli.batch import report_batch_plan, run_jobs

        template = DEFAULT_TEMPLATE if output is None else str(output)
        plan = plan_batch(
            pipe, lines, choices, all_seeds, template, finishing, truncate_prompt=truncate_prompt
        )
        for text in plan.notes + pipe.notes:
            note(text)
        if dry_run:
            report_batch_plan(pipe, plan, memory_limit, json_output)
            return
        pipe.check_memory(plan.largest, memory_limit)
        run_jobs(
            pipe,
            plan,
            finishing,
            truncate_prompt=truncate_prompt,
            keep_latents=keep_latents,
            json_output=json_output,
        )
        return
    prompt = lines[0].request["prompt"]
    choices["seed"] = all_seeds[0]
    choices["latent_shape"] = None if initial is None else tuple(initial.shape)
    settings, notes = pipe.settings(prompt, truncate_prompt=truncate_prompt, **choices)
    notes += pipe.notes
    for text in notes:
        note(text)
    target = output or default_output(prompt, settings.seed)
    check_output(target, raw_bytes(target, settings), denoise=filtered)
    if dry_run:
        report_dry_run(pipe, settings, target, memory_limit, json_output)
        return
    pipe.check_memory(settings, memory_limit)
    with ProgressObserver() as observer:
        log = StageLog(pipe.device, observer)
        record = generate_file(
            pipe, settings, target, log, finishing, initial=initial, keep_latents=keep_latents
        )
    seconds = time.perf_counter() - started
    if json_output:
        print_json(summary(pipe, settings, record, target, notes, seconds))
        return
    print_table(stage_table(log.reports))
    print_shadow(record)
    stderr().print(f"[green]done[/] in {seconds:.1f} s with {backends_used(pipe)}")
    report_result(target)


def _refuse_what_comes_later(offload: OffloadChoice) -> None:
    if offload is OffloadChoice.stream:
        raise InvalidRequest(
            "--offload stream: layer streaming is not in this version yet; use auto, which keeps "
            "one model in memory at a time"
        )


def _prompts(
    argument: str | None, option: str | None, file: Path | None
) -> tuple[list[PromptLine], bool]:
    """What is to be made, and whether that is a batch: a text file of one prompt is none."""
    given = [text for text in (argument, option) if text is not None]
    if len(given) + (file is not None) > 1:
        raise InvalidRequest("give the prompt once: as an argument, with --prompt or --prompt-file")
    if file is not None:
        lines = read_prompts(file)
        return lines, len(lines) > 1 or file.suffix.lower() in JSON_LINES
    if not given:
        raise InvalidRequest('there is no prompt: write stepvideo run "a red fox in the snow"')
    return [PromptLine(line=1, request={"prompt": given[0]})], False
