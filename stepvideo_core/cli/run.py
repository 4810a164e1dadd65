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
from stepvideo_core.cli.options import NumericsChoice, OffloadChoice
from stepvideo_core.cli.report import (
    backends_used,
    print_shadow,
    report_dry_run,
    report_result,
    summary,
)
from stepvideo_core.errors import InvalidRequest, RunInterrupted

_VIDEO, _OUTPUT, _MEMORY = "Video", "Output", "Memory"


def run(
    prompt_argument: Annotated[
        str | None, typer.Argument(metavar="PROMPT", help="What the video shows.")
    ] = None,
    model: options.ModelOption = "tiny",
    prompt_option: Annotated[
        str | None, typer.Option("--prompt", "-p", help="The prompt, as an option.")
    ] = None,
    prompt_file: Annotated[
        Path | None, typer.Option("--prompt-file", help="Read the prompt from a text file.")
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
        Path | None, typer.Option("--image", help="First frame; not in this version yet.")
    ] = None,
    motion_score: Annotated[
        float | None,
        typer.Option("--motion-score", help="Image-to-video; not in this version yet."),
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option("--frames", help="1, or a multiple of 17.", rich_help_panel=_VIDEO),
    ] = None,
    height: Annotated[
        int | None, typer.Option("--height", help="Multiple of 16.", rich_help_panel=_VIDEO)
    ] = None,
    width: Annotated[
        int | None, typer.Option("--width", help="Multiple of 16.", rich_help_panel=_VIDEO)
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", help="Denoising steps.", rich_help_panel=_VIDEO)
    ] = None,
    cfg_scale: Annotated[
        float | None,
        typer.Option(
            "--cfg-scale", help="Guidance; 1 runs a single branch.", rich_help_panel=_VIDEO
        ),
    ] = None,
    time_shift: Annotated[
        float | None,
        typer.Option("--time-shift", help="Shift of the schedule.", rich_help_panel=_VIDEO),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            help="Same seed, same noise, on every device. Default 1234.",
            rich_help_panel=_VIDEO,
        ),
    ] = None,
    latents: Annotated[
        Path | None,
        typer.Option(
            "--latents",
            help="Initial noise: a safetensors file with `latents` [1, F, C, h, w].",
            rich_help_panel=_VIDEO,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help=".mp4, .webm, .gif, .safetensors, or a folder for PNG frames.",
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
    """Generate a video from a prompt.

    The settings that you leave out are the model's own. A run never loses finished work: the final
    latents are on disk before decoding starts, and `stepvideo decode` goes on from there.
    """
    _refuse_what_comes_later(image, motion_score, offload)
    prompt = _the_prompt(prompt_argument, prompt_option, prompt_file)
    started = time.perf_counter()

    from stepvideo_core.latents_file import read_latents
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
    )
    settings, notes = pipe.settings(
        prompt,
        negative_prompt=negative_prompt,
        positive_suffix=positive_suffix,
        truncate_prompt=truncate_prompt,
        frames=frames,
        height=height,
        width=width,
        steps=steps,
        cfg_scale=cfg_scale,
        time_shift=time_shift,
        seed=seed,
        latent_shape=None if initial is None else tuple(initial.shape),
    )
    if not pipe.layout.is_trained:
        notes.append("this model is untrained: the video will be noise, whatever the prompt")
    for text in notes:
        note(text)
    target = output or options.default_output(prompt, settings.seed)
    filtered = pipe.config.sampling.denoise_filter if denoise_filter is None else denoise_filter
    raw_bytes = settings.num_frames * settings.height * settings.width * 3
    compressed = target.suffix.lower() != ".safetensors"
    check_output(target, None if compressed else raw_bytes, denoise=filtered)
    if dry_run:
        report_dry_run(pipe, settings, target, memory_limit, json_output)
        return
    pipe.check_memory(settings, memory_limit)

    from stepvideo_core.cli.finish import save_then_decode
    from stepvideo_core.progress import StageLog
    from stepvideo_core.record import run_record

    with ProgressObserver() as observer:
        log = StageLog(pipe.device, observer)
        try:
            embeddings = pipe.encode_text(settings, log)
            final = pipe.sample_latents(settings, embeddings, log, initial)
        except KeyboardInterrupt:
            raise RunInterrupted(f"interrupted during {log.current}; nothing was written") from None
        record = run_record(pipe, settings, log)
        record["finishing"] = {"crop": crop, "denoise_filter": filtered}
        save_then_decode(
            pipe,
            final,
            target,
            record,
            log,
            fps=settings.fps,
            crop=crop,
            denoise_filter=filtered,
            keep_latents=keep_latents,
        )
    seconds = time.perf_counter() - started
    if json_output:
        print_json(summary(pipe, settings, record, target, notes, seconds))
        return
    print_table(stage_table(log.reports))
    print_shadow(record)
    stderr().print(f"[green]done[/] in {seconds:.1f} s with {backends_used(pipe)}")
    report_result(target)


def _refuse_what_comes_later(
    image: Path | None, motion_score: float | None, offload: OffloadChoice
) -> None:
    if image is not None or motion_score is not None:
        flag = "--image" if image is not None else "--motion-score"
        raise InvalidRequest(f"{flag}: image-to-video is not in this version yet")
    if offload is OffloadChoice.stream:
        raise InvalidRequest(
            "--offload stream: layer streaming is not in this version yet; use auto, which keeps "
            "one model in memory at a time"
        )


def _the_prompt(argument: str | None, option: str | None, file: Path | None) -> str:
    given = [text for text in (argument, option) if text is not None]
    if len(given) + (file is not None) > 1:
        raise InvalidRequest("give the prompt once: as an argument, with --prompt or --prompt-file")
    if file is not None:
        try:
            lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"--prompt-file {file} cannot be read: {error}") from error
        given = [line for line in lines if line]
        if len(given) > 1:
            raise InvalidRequest(
                f"--prompt-file {file} has {len(given)} prompts; this version runs one at a time"
            )
    if not given:
        raise InvalidRequest('there is no prompt: write stepvideo run "a red fox in the snow"')
    return given[0]
