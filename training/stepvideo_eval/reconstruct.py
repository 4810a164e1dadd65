"""What the VAE keeps of a clip: encoded to the posterior's mean, decoded, compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from stepvideo_core.models.vae import VideoVAE
from stepvideo_core.pipeline import StepVideoPipeline
from stepvideo_core.progress import StageLog
from stepvideo_core.quality import psnr, ssim
from stepvideo_eval.adherence import Verdict, everything, judge, observe
from stepvideo_eval.clips import Clip
from stepvideo_eval.results import marks, proportions, smoothness_summary
from stepvideo_eval.sheet import Row, stills
from stepvideo_eval.statistics import mean
from stepvideo_eval.temporal import Smoothness, smoothness

MAX_PSNR = 100.0
"""In dB, for equal frames, whose PSNR is infinite, so that means can be taken and written."""


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """A clip's figures after encoding and decoding.

    psnr, ssim: means over the frames.
    psnr_seams: mean over the frames on both sides of chunk seams, None without seams.
    verdict: what of the scene is still seen, if it is known.
    """

    name: str
    psnr: float
    psnr_seams: float | None
    ssim: float
    original: Smoothness | None
    reconstructed: Smoothness | None
    verdict: Verdict | None
    stills_NHWC: Tensor

    def as_json(self) -> dict[str, Any]:
        """A row of the report."""
        return {
            "name": self.name,
            "psnr": self.psnr,
            "psnr_seams": self.psnr_seams,
            "ssim": self.ssim,
            "smoothness": {
                name: None if each is None else each.as_json()
                for name, each in (
                    ("original", self.original),
                    ("reconstructed", self.reconstructed),
                )
            },
            "adherence": None if self.verdict is None else self.verdict.as_json(),
        }

    def as_row(self) -> Row:
        """A row of the contact sheet: the stills of the original above those of the result."""
        comparisons = () if self.verdict is None else self.verdict.comparisons
        title = f"{self.name}  {self.psnr:.1f} dB, SSIM {self.ssim:.3f}"
        return Row(
            stills_NHWC=self.stills_NHWC, title=title, caption=title, marks=marks(comparisons)
        )


@torch.inference_mode()
def reconstruct(pipe: StepVideoPipeline, clip: Clip) -> Reconstruction:
    """Encode a clip to the mean of its posterior, decode that as a run does, and compare.

    The weights are those in memory: borrow the VAE around many calls. Raises InvalidRequest for a
    clip that the VAE cannot take.
    """
    frames_THWC = clip.frames_THWC
    with pipe.residency.borrowed("vae"):
        vae = cast("VideoVAE", pipe.residency.load("vae"))
        pixels_TCHW = (frames_THWC.movedim(-1, 1).float() / 127.5 - 1).to(pipe.device, pipe.dtype)
        latents = vae.encode(pixels_TCHW[None]).mean.float().cpu()
        result_THWC = torch.cat(list(pipe.decode_frames(latents, StageLog(pipe.device))))
    chunk = pipe.config.vae.frame_chunk
    by_frame = psnr(result_THWC, frames_THWC).clamp(max=MAX_PSNR).tolist()
    # A seam lies between frames i - 1 and i; both are blended.
    seams = [by_frame[i + side] for i in range(chunk, len(by_frame), chunk) for side in (-1, 0)]
    pair = torch.cat([stills(frames_THWC), stills(result_THWC)], dim=1)
    named = None if clip.scene is None else everything(clip.scene)
    return Reconstruction(
        name=clip.name,
        psnr=sum(by_frame) / len(by_frame),
        psnr_seams=mean(seams),
        ssim=float(ssim(result_THWC, frames_THWC).mean()),
        original=smoothness(frames_THWC, chunk),
        reconstructed=smoothness(result_THWC, chunk),
        verdict=None if named is None else judge(named, observe(result_THWC.numpy())),
        stills_NHWC=pair,
    )


def summary(results: Sequence[Reconstruction]) -> dict[str, Any]:
    """Means over clips, the worst PSNR, and what of known scenes is still seen."""
    verdicts = [each.verdict for each in results if each.verdict is not None]
    seams = [each.psnr_seams for each in results if each.psnr_seams is not None]
    return {
        "clips": len(results),
        "psnr": mean(each.psnr for each in results),
        "psnr_lowest": min((each.psnr for each in results), default=None),
        "psnr_seams": mean(seams),
        "ssim": mean(each.ssim for each in results),
        "smoothness": {
            "original": smoothness_summary(each.original for each in results),
            "reconstructed": smoothness_summary(each.reconstructed for each in results),
        },
        "adherence": proportions(verdicts) if verdicts else None,
    }
