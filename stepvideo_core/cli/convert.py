"""`stepvideo convert`: writing checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from stepvideo_core.cli import options
from stepvideo_core.cli.console import ProgressObserver, note, print_json, print_table, stderr
from stepvideo_core.cli.guard import guarded

if TYPE_CHECKING:
    import torch

    from stepvideo_core.checkpoints.conversion import Conversion

app = typer.Typer(
    help="Write checkpoints.", no_args_is_help=True, context_settings={"max_content_width": 100}
)

_OfficialSource = Annotated[
    Path, typer.Argument(metavar="SRC", help="An official checkpoint, or its transformer folder.")
]
_TrainingSource = Annotated[
    Path,
    typer.Argument(
        metavar="SRC",
        help="A training checkpoint, or one iteration of it (iter_0005000, release).",
    ),
]
_TrainingTarget = Annotated[
    Path, typer.Argument(metavar="DST", help="Where `release` will be written.")
]
_RanksOption = Annotated[int, typer.Option("--tp", min=1, help="Tensor-parallel ranks.")]
_StagesOption = Annotated[
    str | None,
    typer.Option("--pp", metavar="N,N,...", help="Blocks in each pipeline stage. Default: one."),
]
_DTypeOption = Annotated[
    options.DType | None, typer.Option("--dtype", help="Default: as they are stored.")
]
_DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="List what would be written, and stop.")
]
_ForceOption = Annotated[bool, typer.Option("--force", help="Replace an output that is there.")]


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


@app.command("hf-to-mm")
@guarded
def hf_to_mm(
    source: _OfficialSource,
    target: _TrainingTarget,
    num_ranks: _RanksOption = 1,
    stages: _StagesOption = None,
    dtype: _DTypeOption = None,
    dry_run: _DryRunOption = False,
    force: _ForceOption = False,
    json_output: options.JsonOption = False,
) -> None:
    """Divide an official transformer for Megatron-style training (MindSpeed-MM).

    Goes tensor by tensor: about 3 GB of memory for the 30B model, however it is divided.
    """
    from stepvideo_core.checkpoints import conversion

    _convert(
        conversion.hf_to_mm(
            source, target, num_ranks=num_ranks, layers=stages, dtype=_torch_dtype(dtype)
        ),
        dry_run=dry_run,
        force=force,
        json_output=json_output,
    )


@app.command("mm-to-hf")
@guarded
def mm_to_hf(
    source: _TrainingSource,
    target: Annotated[
        Path,
        typer.Argument(
            metavar="DST",
            help="Where `transformer` will be written: a new folder, or a checkpoint without one.",
        ),
    ],
    dtype: _DTypeOption = None,
    dry_run: _DryRunOption = False,
    force: _ForceOption = False,
    json_output: options.JsonOption = False,
) -> None:
    """Join the ranks and stages of a training checkpoint to an official transformer.

    Reads weights only: a file that would run code is refused.
    """
    from stepvideo_core.checkpoints import conversion

    _convert(
        conversion.mm_to_hf(source, target, dtype=_torch_dtype(dtype)),
        dry_run=dry_run,
        force=force,
        json_output=json_output,
    )


@app.command("resplit")
@guarded
def resplit(
    source: _TrainingSource,
    target: _TrainingTarget,
    num_ranks: _RanksOption = 1,
    stages: _StagesOption = None,
    dtype: _DTypeOption = None,
    dry_run: _DryRunOption = False,
    force: _ForceOption = False,
    json_output: options.JsonOption = False,
) -> None:
    """Divide a training checkpoint among other numbers of ranks and stages."""
    from stepvideo_core.checkpoints import conversion

    _convert(
        conversion.resplit(
            source, target, num_ranks=num_ranks, layers=stages, dtype=_torch_dtype(dtype)
        ),
        dry_run=dry_run,
        force=force,
        json_output=json_output,
    )


def _torch_dtype(dtype: options.DType | None) -> torch.dtype | None:
    import torch

    return None if dtype is None else getattr(torch, dtype.value)


def _convert(conversion: Conversion, *, dry_run: bool, force: bool, json_output: bool) -> None:
    import torch

    from stepvideo_core.memory.units import format_bytes
    from stepvideo_core.progress import StageLog

    for text in conversion.notes:
        note(text)
    target = conversion.target.folder
    if dry_run:
        conversion.check_output(force=force)
        if json_output:
            print_json(conversion.as_json())
            return
        _print_listing(conversion)
        size = format_bytes(conversion.num_bytes)
        stderr().print(f"would write {size} to {target}", soft_wrap=True)
        return
    with ProgressObserver() as observer:
        log = StageLog(torch.device("cpu"), observer)
        total = sum(info.num_bytes for info in conversion.source.infos.values())
        with log.stage("convert", total, "bytes") as advance:
            conversion.run(force=force, on_bytes=advance)
    if json_output:
        report = log.reports[0]
        print_json(
            {
                "output": str(target),
                "files": [str(target / path) for path in conversion.listing],
                "bytes": conversion.num_bytes,
                "seconds": report.seconds,
                "peak_memory": {"host": report.host_peak_bytes},
                "notes": list(conversion.notes),
            }
        )
        return
    stderr().print(str(target), soft_wrap=True)


def _print_listing(conversion: Conversion) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("file", "tensor", "shape", "dtype"):
        table.add_column(column, overflow="fold")
    for path, entries in conversion.listing.items():
        for name, entry in entries.items():
            dtype = str(entry.dtype).removeprefix("torch.")
            table.add_row(path.as_posix(), name, str(list(entry.shape)), dtype)
    print_table(table)
