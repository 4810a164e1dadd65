"""What the commands of `stepvideo vae` print and record."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table

from stepvideo_core.cli.console import note, print_json, print_table, stage_table, stderr

if TYPE_CHECKING:
    from stepvideo_core.progress import StageLog
    from stepvideo_core.quality import QualityMeter
    from stepvideo_core.vae_codec import VAECodec
    from stepvideo_core.video.reading import FrameReader


def latents_record(codec: VAECodec, reader: FrameReader, sample: int | None) -> dict[str, Any]:
    """What `stepvideo decode` looks for in a record, and where the latents came from."""
    from stepvideo_core.record import RECORD_FORMAT, versions

    return {
        "format": RECORD_FORMAT,
        "model": str(codec.layout.root.resolve()),
        "dtype": str(codec.dtype).removeprefix("torch."),
        "device": str(codec.device),
        "plan": codec.plan.as_json(),
        "settings": {} if reader.fps is None else {"fps": reader.fps},
        "finishing": {"crop": False, "denoise_filter": False},
        "encoded_from": {
            "file": reader.path.name,
            "width": reader.width,
            "height": reader.height,
            "posterior": "mean" if sample is None else "sample",
            "seed": sample,
        },
        "versions": versions(),
    }


def quality_json(meter: QualityMeter, reason: str | None) -> dict[str, Any]:
    """JSON has no infinity, so the PSNR of equal frames is null."""

    def plain(value: float) -> float | None:
        return value if math.isfinite(value) else None

    found: dict[str, Any] = {
        name: {key: plain(value) for key, value in asdict(summary).items()}
        | {"per_frame": [plain(value) for value in meter.values[name]]}
        for name, summary in meter.summaries().items()
    }
    return found if "lpips" in found else found | {"lpips": None, "why_no_lpips": reason}


def quality_table(meter: QualityMeter) -> Table:
    """Mean and extremes of each measure."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("measure")
    for column in ("mean", "lowest", "highest"):
        table.add_column(column, justify="right")
    labels = {"psnr": "PSNR (dB)", "ssim": "SSIM", "lpips": "LPIPS"}
    for name, summary in meter.summaries().items():
        digits = 2 if name == "psnr" else 4
        cells = (summary.mean, summary.lowest, summary.highest)
        table.add_row(labels[name], *(f"{value:.{digits}f}" for value in cells))
    return table


def measured(codec: VAECodec, log: StageLog) -> dict[str, Any]:
    """What the work took, and with which implementations."""
    device_peaks = [r.device_peak_bytes for r in log.reports if r.device_peak_bytes]
    return {
        "plan": codec.plan.as_json(),
        "timings": {report.name: report.seconds for report in log.reports},
        "peak_memory": {
            "host": max(report.host_peak_bytes for report in log.reports),
            "device": max(device_peaks) if device_peaks else None,
        },
    }


def finish(result: dict[str, Any], notes: list[str], log: StageLog, json_output: bool) -> None:
    """The notes, then one JSON object or the stages and the name of the output."""
    for text in notes:
        note(text)
    if json_output:
        print_json(result)
        return
    print_table(stage_table(log.reports))
    if result["output"] is not None:
        stderr().print(result["output"], soft_wrap=True)
