"""`stepvideo decode`: from saved latents to a video file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stepvideo_core.cli import options
from stepvideo_core.cli.console import (
    ProgressObserver,
    print_json,
    print_table,
    stage_table,
    stderr,
)
from stepvideo_core.cli.options import DType, NumericsChoice
from stepvideo_core.cli.report import print_shadow
from stepvideo_core.errors import InvalidRequest, RunInterrupted


def decode(
    latents: Annotated[
        Path,
        typer.Argument(help="A file that `stepvideo run` left, or any safetensors with `latents`."),
    ],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Default: the model that the latents were made with."),
    ] = None,
    shared: options.SharedOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help=".mp4, .webm, .gif, .safetensors, or a folder for PNG frames."
        ),
    ] = None,
    fps: Annotated[int | None, typer.Option("--fps", min=1, max=240)] = None,
    crop: Annotated[
        bool | None, typer.Option("--crop/--no-crop", help="The official 540p centre crop.")
    ] = None,
    denoise_filter: Annotated[
        bool | None,
        typer.Option("--denoise-filter/--no-denoise-filter", help="The official temporal filter."),
    ] = None,
    dtype: options.DTypeOption = None,
    numerics: Annotated[
        NumericsChoice | None,
        typer.Option("--numerics", help="Default: as the latents were made."),
    ] = None,
    backend: options.BackendOption = "auto",
    ops: options.OpOption = None,
    no_fallback: options.FallbackOption = False,
    shadow: options.ShadowOption = None,
    device: options.DeviceOption = None,
    json_output: options.JsonOption = False,
) -> None:
    """Decode latents into a video, for instance to resume a run that stopped while decoding.

    What the run's record says (model, dtype, rate, finishing) is used unless you say otherwise.
    """
    from stepvideo_core.latents_file import read_latents
    from stepvideo_core.video import check_output

    tensor, record = read_latents(latents)
    source = model or record.get("model")
    if source is None:
        raise InvalidRequest(f"{latents} does not say which model made it: name it with --model")
    target = output or latents.with_name(
        latents.name.removesuffix(".safetensors").removesuffix(".latents") + ".mp4"
    )
    if target.resolve() == latents.resolve():
        raise InvalidRequest(f"--output {target} is the latents file itself; name another one")
    if shared is None and model is None and record.get("shared"):
        shared = Path(record["shared"])
    pipe = options.open_pipeline(
        source,
        shared=shared,
        backend=backend,
        ops=ops,
        no_fallback=no_fallback,
        shadow=shadow,
        device=device,
        dtype=dtype or (DType(record["dtype"]) if "dtype" in record else None),
        numerics=numerics or NumericsChoice(record.get("numerics", "accurate")),
    )
    channels = pipe.config.vae.z_channels
    if tensor.dim() != 5 or tensor.shape[0] != 1 or tensor.shape[2] != channels:
        raise InvalidRequest(
            f"{latents} has latents {list(tensor.shape)}; this model decodes [1, F, {channels}, h, "
            "w]"
        )
    finishing = record.get("finishing", {})
    sampling = pipe.config.sampling
    if denoise_filter is None:
        denoise_filter = bool(finishing.get("denoise_filter", sampling.denoise_filter))
    check_output(target, denoise=denoise_filter)

    from stepvideo_core.cli.finish import decode_to_file
    from stepvideo_core.progress import StageLog
    from stepvideo_core.record import versions

    record |= {"model": str(pipe.layout.root.resolve()), "decoded_with": versions()}
    with ProgressObserver() as observer:
        log = StageLog(pipe.device, observer)
        try:
            decode_to_file(
                pipe,
                tensor,
                target,
                record,
                log,
                fps=fps or record.get("settings", {}).get("fps", sampling.fps),
                crop=finishing.get("crop", True) if crop is None else crop,
                denoise_filter=denoise_filter,
            )
        except KeyboardInterrupt:
            raise RunInterrupted(f"interrupted while decoding; {latents} is untouched") from None
    if json_output:
        print_json(
            {
                "output": str(target),
                "latents": str(latents),
                "plan": pipe.plan.as_json(),
                "timings": {report.name: report.seconds for report in log.reports},
                "peak_memory": {"host": max(r.host_peak_bytes for r in log.reports)},
            }
        )
        return
    print_table(stage_table(log.reports))
    print_shadow(record)
    stderr().print(str(target), soft_wrap=True)
