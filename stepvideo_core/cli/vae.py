"""`stepvideo vae`: the Video-VAE by itself."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepvideo_core.cli import options
from stepvideo_core.cli.console import ProgressObserver, note, print_table
from stepvideo_core.cli.guard import guarded
from stepvideo_core.cli.vae_results import (
    finish,
    latents_record,
    measured,
    quality_json,
    quality_table,
)
from stepvideo_core.errors import InvalidRequest, OutputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from stepvideo_core.progress import StageLog
    from stepvideo_core.quality import QualityMeter
    from stepvideo_core.vae_codec import VAECodec
    from stepvideo_core.video import FrameWriter
    from stepvideo_core.video.fitting import Chunks
    from stepvideo_core.video.reading import FrameReader

app = typer.Typer(
    help="Encode, decode and compare videos and pictures with the Video-VAE alone.",
    no_args_is_help=True,
    context_settings={"max_content_width": 100},
)


class FitChoice(str, Enum):
    crop = "crop"
    resize = "resize"
    exact = "exact"


_VideoArgument = Annotated[
    Path, typer.Argument(metavar="VIDEO", help="Any video that FFmpeg reads, or a picture.")
]
_ModelOption = Annotated[
    str,
    typer.Option(
        "--model", "-m", help="`tiny`, or a checkpoint; nothing but its vae folder is needed."
    ),
]
_FramesOption = Annotated[
    int | None, typer.Option("--frames", min=1, help="Take only so many, from the first on.")
]
_FitOption = Annotated[
    FitChoice,
    typer.Option(
        "--fit",
        help="Sides must be multiples of 16. crop: cut off the rest, evenly; resize: scale to the "
        "nearest; exact: refuse.",
    ),
]
_SampleOption = Annotated[
    int | None,
    typer.Option(
        "--sample",
        metavar="SEED",
        min=0,
        help="Draw the latents at random, as the official code does, instead of taking the mean.",
    ),
]


@app.callback()
def _group() -> None:
    """Encode, decode and compare videos and pictures with the Video-VAE alone."""


@app.command("encode")
@guarded
def encode(
    video: _VideoArgument,
    latents: Annotated[Path, typer.Argument(metavar="LATENTS", help="A .safetensors file.")],
    model: _ModelOption = "tiny",
    frames: _FramesOption = None,
    fit: _FitOption = FitChoice.crop,
    sample: _SampleOption = None,
    dtype: options.DTypeOption = None,
    backend: options.BackendOption = "auto",
    ops: options.OpOption = None,
    no_fallback: options.FallbackOption = False,
    device: options.DeviceOption = None,
    json_output: options.JsonOption = False,
) -> None:
    """Encode a video or a picture into a file that `vae decode` and `stepvideo decode` read.

    The video is read chunk by chunk, 17 frames at a time; of the frames behind the last whole chunk
    the first 9 or 1 are taken, because other lengths would not come back.
    """
    import torch

    from stepvideo_core.latents_file import write_latents
    from stepvideo_core.video import check_output

    if latents.suffix.lower() != ".safetensors":
        raise OutputError(f"{latents}: latents are written as .safetensors; name such a file")
    check_output(latents)
    codec = _open(model, backend, ops, no_fallback, device, dtype)
    with _open_video(video) as reader, ProgressObserver() as observer:
        log = _load(codec, observer)
        chunks = _chunks(reader, codec, frames, fit)
        with log.stage("encode", unit="frames") as advance:
            pieces = list(codec.encode(_counted(chunks, advance), _generator(sample)))
        encoded = torch.cat(pieces, dim=1)
        notes = reader.notes + chunks.notes
        record = latents_record(codec, reader, sample)
        write_latents(latents, encoded, record)
    result = {
        "output": str(latents),
        "latents": list(encoded.shape),
        "frames": chunks.num_frames,
        "notes": notes,
        **measured(codec, log),
    }
    finish(result, notes, log, json_output)


@app.command("decode")
@guarded
def decode(
    latents: Annotated[
        Path, typer.Argument(metavar="LATENTS", help="Any safetensors with `latents`.")
    ],
    video: Annotated[
        Path,
        typer.Argument(
            metavar="VIDEO", help=".mp4, .webm, .gif, .png for one frame, or a folder for PNGs."
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Default: the model that made the latents."),
    ] = None,
    fps: Annotated[float | None, typer.Option("--fps", min=0.1, max=240)] = None,
    dtype: options.DTypeOption = None,
    backend: options.BackendOption = "auto",
    ops: options.OpOption = None,
    no_fallback: options.FallbackOption = False,
    device: options.DeviceOption = None,
    json_output: options.JsonOption = False,
) -> None:
    """Decode latents into a video or a picture, without crop or filter."""
    from stepvideo_core.latents_file import read_latents
    from stepvideo_core.video import FPS

    tensor, record = read_latents(latents)
    _check_writable(video)
    source = model or record.get("model")
    if source is None:
        raise InvalidRequest(f"{latents} does not say which model made it: name it with --model")
    codec = _open(source, backend, ops, no_fallback, device, dtype)
    channels, factor = codec.config.z_channels, codec.config.spatial_factor
    if tensor.dim() != 5 or tensor.shape[0] != 1 or tensor.shape[2] != channels:
        raise InvalidRequest(
            f"{latents} has latents {list(tensor.shape)}; this VAE decodes [1, F, {channels}, h, w]"
        )
    rate = fps or record.get("settings", {}).get("fps") or FPS
    num_frames = codec.config.pixel_frames(tensor.shape[1])
    with ProgressObserver() as observer:
        log = _load(codec, observer)
        size = (tensor.shape[3] * factor, tensor.shape[4] * factor)
        with (
            _writer(video, size, rate, record) as writer,
            log.stage("decode", num_frames, "frames") as advance,
        ):
            for chunk in codec.decode([tensor]):
                writer.write(chunk)
                advance(len(chunk))
    result = {"output": str(video), "frames": num_frames, "notes": [], **measured(codec, log)}
    finish(result, [], log, json_output)


@app.command("reconstruct")
@guarded
def reconstruct(
    video: _VideoArgument,
    output: Annotated[
        Path | None,
        typer.Argument(
            metavar="[OUT]", help="What comes back: .mp4, .webm, .gif, .png, or a folder for PNGs."
        ),
    ] = None,
    model: _ModelOption = "tiny",
    frames: _FramesOption = None,
    fit: _FitOption = FitChoice.crop,
    sample: _SampleOption = None,
    lpips: Annotated[
        bool | None,
        typer.Option("--lpips/--no-lpips", help="Default: if its package is installed."),
    ] = None,
    dtype: options.DTypeOption = None,
    backend: options.BackendOption = "auto",
    ops: options.OpOption = None,
    no_fallback: options.FallbackOption = False,
    device: options.DeviceOption = None,
    json_output: options.JsonOption = False,
) -> None:
    """Encode a video or a picture, decode it again, and say how close it comes.

    PSNR and SSIM compare the 8-bit RGB frames before they are compressed into OUT; LPIPS is
    computed where the package `lpips` is installed.
    """
    if output is not None:
        if output.resolve() == video.resolve():
            raise InvalidRequest(f"{output} is the original itself; name another output")
        _check_writable(output)
    codec = _open(model, backend, ops, no_fallback, device, dtype)
    with _open_video(video) as reader, contextlib.ExitStack() as stack:
        chunks = _chunks(reader, codec, frames, fit)
        meter, reason = _meter(lpips, codec)
        writer: FrameWriter | None = None
        if output is not None:
            record = latents_record(codec, reader, sample)
            rate = reader.fps or 1.0
            writer = stack.enter_context(_writer(output, chunks.size, rate, record))
        observer = stack.enter_context(ProgressObserver())
        log = _load(codec, observer)
        with log.stage("reconstruct", unit="frames") as advance:
            originals: deque[Tensor] = deque()
            encoded = codec.encode(_kept(chunks, originals), _generator(sample))
            for decoded in codec.decode(encoded):
                meter.add(decoded, originals.popleft())
                if writer is not None:
                    writer.write(decoded)
                advance(len(decoded))
        notes = reader.notes + chunks.notes
    if reason is not None:
        notes.append(reason)
    result = {
        "output": None if output is None else str(output),
        "frames": chunks.num_frames,
        "size": [chunks.size[1], chunks.size[0]],
        **quality_json(meter, reason),
        "notes": notes,
        **measured(codec, log),
    }
    if not json_output:
        print_table(quality_table(meter))
    finish(result, notes, log, json_output)


def _open(
    model: str,
    backend: str,
    ops: list[str] | None,
    no_fallback: bool,
    device: str | None,
    dtype: options.DType | None,
) -> VAECodec:
    import torch

    from stepvideo_core.vae_codec import VAECodec

    codec = VAECodec.from_pretrained(
        model,
        backend=backend,
        ops=ops or (),
        allow_fallback=not no_fallback,
        device=device,
        dtype=None if dtype is None else getattr(torch, dtype.value),
    )
    if not codec.layout.is_trained:
        note("this model is untrained: what it encodes cannot be decoded to anything like it")
    return codec


def _open_video(path: Path) -> FrameReader:
    from stepvideo_core.video.reading import FrameReader

    return FrameReader(path)


def _load(codec: VAECodec, observer: ProgressObserver) -> StageLog:
    from stepvideo_core.progress import StageLog

    log = StageLog(codec.device, observer)
    with log.stage("load VAE", codec.num_bytes, "bytes") as advance:
        codec.load(advance)
    return log


def _chunks(reader: FrameReader, codec: VAECodec, frames: int | None, fit: FitChoice) -> Chunks:
    from stepvideo_core.video.fitting import Chunks, SizeFit

    size = SizeFit.plan(reader.height, reader.width, codec.config.spatial_factor, fit.value)
    return Chunks(reader.frames(frames), codec.config, size)


def _generator(seed: int | None) -> torch.Generator | None:
    import torch

    return None if seed is None else torch.Generator().manual_seed(seed)


def _counted(chunks: Iterable[Tensor], advance: Any) -> Iterator[Tensor]:
    for chunk in chunks:
        yield chunk
        advance(len(chunk))


def _kept(chunks: Iterable[Tensor], originals: deque[Tensor]) -> Iterator[Tensor]:
    for chunk in chunks:
        originals.append(chunk)
        yield chunk


def _check_writable(path: Path) -> None:
    from stepvideo_core.video import check_output

    # It takes a name's extension for a format; a single picture needs no encoder, as this one.
    check_output(path.with_suffix(".safetensors") if path.suffix.lower() == ".png" else path)


def _writer(path: Path, size: tuple[int, int], fps: float, record: dict[str, Any]) -> FrameWriter:
    from stepvideo_core.video import open_writer
    from stepvideo_core.video.still import StillWriter

    height, width = size
    if path.suffix.lower() == ".png":
        return StillWriter(path, height=height, width=width, crop=None, metadata=record)
    return open_writer(
        path,
        height=height,
        width=width,
        fps=fps,
        crop=False,
        denoise=False,
        metadata=record,
        latents=None,
    )


def _meter(lpips: bool | None, codec: VAECodec) -> tuple[QualityMeter, str | None]:
    """The measures, and why LPIPS is not among them if it is not."""
    from stepvideo_core.perceptual import PerceptualDistance, why_no_lpips
    from stepvideo_core.quality import Measure, QualityMeter, psnr, ssim

    measures: dict[str, Measure] = {"psnr": psnr, "ssim": ssim}
    reason = "LPIPS is not computed: --no-lpips" if lpips is False else why_no_lpips()
    if reason is None or lpips:
        measures["lpips"] = PerceptualDistance(codec.device)
    return QualityMeter(measures), reason
