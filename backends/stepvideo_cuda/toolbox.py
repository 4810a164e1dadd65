"""The optional libraries and the devices, as found once while the backend loads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from stepvideo_core.dispatch import Library, find_library
from stepvideo_core.ops import Site
from stepvideo_cuda.capability import INTERPRETER, Capability, probe

# Triton's own statement of what it generates code for.
_TRITON_OLDEST = (8, 0)


@dataclass(frozen=True, kw_only=True)
class Toolbox:
    """What implementations are built from.

    capability_of: the capability of a site's device. ranks_for: the device whose generation sets
    the order of the implementations.
    """

    kernels: Library
    flash2: Library
    flash3: Library
    flash4: Library
    capability_of: Callable[[torch.device], Capability]
    ranks_for: Capability

    def triton_why_not(self, site: Site) -> list[str]:
        """Why none of our Triton kernels can run at a site, whatever it computes."""
        reasons = self.kernels.why_not()
        capability = self.capability_of(site.device)
        if capability.interpreted:
            return reasons
        if capability.version < _TRITON_OLDEST:
            reasons.append(f"Triton needs compute capability 8.0; this is {capability}")
        if not reasons and self.kernels.module.interpreted():
            reasons.append("TRITON_INTERPRET is set, so it would run in Python on the CPU")
        return reasons


_KERNELS = (
    "interpreted",
    "triton_adaln_modulate",
    "triton_attention",
    "triton_gated_residual",
    "triton_gelu_tanh",
    "triton_group_norm_silu",
    "triton_pixel_shuffle_add",
    "triton_pixel_unshuffle_add",
    "triton_qk_norm_rope",
    "triton_rms_norm",
    "triton_rope_3d",
)


def find_toolbox(*, interpreting: bool) -> Toolbox:
    """Import what is there. interpreting: for the CPU, under Triton's interpreter."""
    flash = ("flash_attn_func",)
    return Toolbox(
        kernels=find_library(
            "stepvideo_kernels", needs=_KERNELS, install="pip install 'stepvideo[cuda]'"
        ),
        flash2=find_library("flash_attn", needs=flash, install="optional: pip install flash-attn"),
        flash3=find_library(
            "flash_attn_interface",
            needs=flash,
            install="optional: build it from the folder `hopper` of the flash-attention repository",
        ),
        flash4=find_library(
            "flash_attn.cute", needs=flash, install="optional: pip install flash-attn-4"
        ),
        capability_of=(lambda device: INTERPRETER) if interpreting else probe,
        ranks_for=INTERPRETER if interpreting else probe(torch.device("cuda")),
    )
