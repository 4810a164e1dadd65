"""LPIPS, the learned perceptual distance, where its package is installed."""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

from stepvideo_core.errors import InvalidRequest

_PACKAGE = "lpips"


def why_no_lpips() -> str | None:
    """Why LPIPS cannot be computed here; None if it can."""
    if importlib.util.find_spec(_PACKAGE) is None:
        return "LPIPS is not computed: its package is not installed (pip install lpips)"
    return None


class PerceptualDistance:
    """LPIPS with AlexNet, the version that papers on video autoencoders report; lower is better."""

    def __init__(self, device: torch.device) -> None:
        """Raises InvalidRequest if the package or AlexNet's weights cannot be had."""
        reason = why_no_lpips()
        if reason is not None:
            raise InvalidRequest(reason)
        import lpips

        try:
            network = lpips.LPIPS(net="alex", verbose=False)
        except OSError as error:  # torchvision downloads AlexNet the first time
            raise InvalidRequest(
                f"LPIPS cannot be computed: AlexNet's weights cannot be downloaded ({error}); "
                "connect once, or leave it out with --no-lpips"
            ) from error
        self._network, self._device = network.to(device).eval(), device

    @torch.inference_mode()
    def __call__(self, frames_THWC: Tensor, original_THWC: Tensor) -> Tensor:
        """The distance of each frame, float64 [T]; levels 0 to 255, any dtype."""
        distances = [
            self._network(self._pixels(frame), self._pixels(original)).double().cpu().reshape(())
            for frame, original in zip(frames_THWC, original_THWC, strict=True)
        ]
        return torch.stack(distances)

    def _pixels(self, frame_HWC: Tensor) -> Tensor:
        pixels_CHW = frame_HWC.to(self._device, torch.float32).movedim(-1, 0) / 127.5 - 1
        return pixels_CHW[None]
