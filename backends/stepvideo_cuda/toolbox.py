"""The optional libraries and the devices, as found once while the backend loads.

A library that is missing or broken costs the implementations that need it and nothing else: its
problem becomes their `why_not`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import torch

from stepvideo_core.errors import BackendUnavailable
from stepvideo_core.ops import Site
from stepvideo_cuda.capability import INTERPRETER, Capability, probe

# Triton's own statement of what it generates code for.
_TRITON_OLDEST = (8, 0)


@dataclass(frozen=True, kw_only=True)
class Library:
    """An imported module, or the sentence that says why there is none."""

    name: str
    imported: ModuleType | None = None
    problem: str | None = None

    @property
    def module(self) -> ModuleType:
        """The module; BackendUnavailable with the problem if it could not be imported."""
        if self.imported is None:
            raise BackendUnavailable(self.problem or f"{self.name} was not imported")
        return self.imported

    def why_not(self) -> list[str]:
        return [self.problem] if self.problem else []


def find_library(name: str, *, needs: tuple[str, ...], install: str) -> Library:
    """Import a module and check that it has the functions we call.

    install: what to do if it is not there, as the end of a sentence.
    """
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            return Library(name=name, problem=f"{name} is not installed; {install}")
        return Library(name=name, problem=f"{name} cannot be imported: {error}; {install}")
    # Compiled extensions fail in any way when they meet another torch: missing symbols (OSError),
    # version checks (RuntimeError), and what their authors thought of.
    except Exception as error:  # noqa: BLE001
        first_line = str(error).strip().split("\n")[0]
        return Library(
            name=name,
            problem=f"{name} is installed but broken: {type(error).__name__}: {first_line}",
        )
    missing = [function for function in needs if not callable(getattr(module, function, None))]
    if missing:
        return Library(
            name=name, problem=f"{name} is installed but has no {', '.join(missing)}; {install}"
        )
    return Library(name=name, imported=module)


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
