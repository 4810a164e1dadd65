"""The Video-VAE by itself: frames to latents and back, chunk by chunk.

    codec = VAECodec.from_pretrained("path/to/stepvideo-t2v")
    latents = torch.cat(list(codec.encode(chunks)), dim=1)
    frames = torch.cat(list(codec.decode([latents])))

Of the checkpoint only its `vae` folder is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from stepvideo_core.checkpoints.bundled import resolve_model
from stepvideo_core.checkpoints.layout import CheckpointLayout
from stepvideo_core.checkpoints.load import KEY_MAPS, load_weights
from stepvideo_core.dispatch import AUTO, DispatchPlan, DispatchPolicy, select_device
from stepvideo_core.errors import NumericalFailure
from stepvideo_core.models.vae import VideoVAE
from stepvideo_core.plugins import load_registry
from stepvideo_core.video.pixels import to_uint8


class VAECodec:
    """Encodes and decodes one video at a time; memory holds one chunk and its neighbour."""

    def __init__(
        self,
        layout: CheckpointLayout,
        *,
        policy: DispatchPolicy,
        device: str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        registry = load_registry()
        self.layout, self.config = layout, layout.vae_config
        self.device = select_device(registry, policy, device)
        self.dtype = dtype or (torch.float32 if self.device.type == "cpu" else torch.bfloat16)
        self.plan = DispatchPlan(registry, policy, device=self.device, dtype=self.dtype)
        with torch.device("meta"):
            self._vae = VideoVAE(self.config, self.plan)
        self._vae.eval().requires_grad_(False)
        self.plan.freeze()
        self._source = layout.open("vae")
        self._loaded = False

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = "tiny",
        *,
        backend: str = AUTO,
        ops: Iterable[str] = (),
        allow_fallback: bool = True,
        device: str | None = None,
        dtype: torch.dtype | None = None,
    ) -> VAECodec:
        """Open the VAE of a checkpoint; arguments as in `StepVideoPipeline.from_pretrained`."""
        policy = DispatchPolicy.parse(
            backend=backend, ops=ops, allow_fallback=allow_fallback, shadow=None
        )
        layout = CheckpointLayout(resolve_model(model))
        return cls(layout, policy=policy, device=device, dtype=dtype)

    @property
    def num_bytes(self) -> int:
        """Size on disk of the weights: the total of the loading progress."""
        return sum(info.num_bytes for info in self._source.infos.values())

    def load(self, on_bytes: Callable[[int], None] | None = None) -> None:
        """Read the weights, if that has not been done."""
        if not self._loaded:
            load_weights(
                self._vae,
                self._source,
                KEY_MAPS["vae"],
                dtype=self.dtype,
                device=self.device,
                on_bytes=on_bytes,
            )
            self._loaded = True

    @torch.inference_mode()
    def encode(
        self, chunks: Iterable[Tensor], generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """Latents [1, f, C, h, w] in float32 on the CPU for each chunk, uint8 [t, H, W, 3].

        generator: draw from the posterior, as the official code always does; None takes its mean.
        Raises NumericalFailure if a chunk's latents are not finite.
        """
        self.load()
        for chunk_THWC in chunks:
            pixels_TCHW = chunk_THWC.movedim(-1, 1).to(self.device, torch.float32) / 127.5 - 1
            posterior = self._vae.encode(pixels_TCHW[None].to(self.dtype))
            latents = posterior.mean if generator is None else posterior.sample(generator)
            _check_finite(latents, "latents")
            yield latents.float().cpu()

    @torch.inference_mode()
    def decode(self, latents: Iterable[Tensor]) -> Iterator[Tensor]:
        """uint8 frames [t, H, W, 3] on the CPU, chunk by chunk, from pieces of the latents.

        latents: [1, f, C, h, w], each of whole chunks but for the last. Raises NumericalFailure if
        a chunk's pixels are not finite.
        """
        self.load()
        pieces = (piece.to(self.device, self.dtype) for piece in latents)
        for pixels_BTCHW in self._vae.decode_pieces(pieces):
            _check_finite(pixels_BTCHW, "frames")
            yield to_uint8(pixels_BTCHW[0])


def _check_finite(tensor: Tensor, what: str) -> None:
    if not bool(tensor.isfinite().all()):
        raise NumericalFailure(
            f"the {what} are not finite: try --dtype float32, or check the kernels with "
            "`stepvideo doctor`"
        )
