"""What the implementations are built from, as found once while the backend loads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from stepvideo_ascend.capability import Capability, probe
from stepvideo_core.dispatch import Library, find_library
from stepvideo_core.ops import Site

_MINDIE = "optional: MindIE-SD's attention for long sequences, pip install mindiesd"


@dataclass(frozen=True, kw_only=True)
class Toolbox:
    """The device's capability, the operators that this torch_npu has, and MindIE-SD if it is here.

    capability_of: the capability of a site's device. offers: whether an operator of the `npu`
    namespace exists; the set differs from one release of torch_npu to the next.
    """

    capability_of: Callable[[torch.device], Capability]
    offers: Callable[[str], bool]
    mindie: Library

    def why_not(self, site: Site, *operators: str) -> list[str]:
        """What keeps any implementation from a site: the device, the dtype, a missing operator."""
        if site.device.type != "npu":
            return [f"it computes on an npu, not on {site.device.type}"]
        reasons = [
            f"this torch_npu has no operator {operator}"
            for operator in operators
            if not self.offers(operator)
        ]
        capability = self.capability_of(site.device)
        if site.dtype == torch.bfloat16 and not capability.has_bfloat16:
            reasons.append(f"bfloat16 came with the Ascend910B (A2); this is {capability}")
        elif site.dtype not in (torch.bfloat16, torch.float16, torch.float32):
            reasons.append(f"NPUs do not compute in {dtype_name(site.dtype)}")
        return reasons


def dtype_name(dtype: torch.dtype) -> str:
    """`bfloat16` of torch.bfloat16."""
    return str(dtype).removeprefix("torch.")


def find_toolbox() -> Toolbox:
    """Look at torch_npu, which must be imported already."""
    return Toolbox(
        capability_of=probe,
        offers=lambda operator: hasattr(torch.ops.npu, operator),
        mindie=find_library("mindiesd", needs=("attention_forward",), install=_MINDIE),
    )
