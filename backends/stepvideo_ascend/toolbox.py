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
        """What keeps any implementation from a site: the device, a missing operator, the dtype."""
        if site.device.type != "npu":
            return [f"it computes on an npu, not on {site.device.type}"]
        missing = [
            f"this torch_npu has no operator {operator}"
            for operator in operators
            if not self.offers(operator)
        ]
        return missing + self.capability_of(site.device).refusals(site.dtype)


def find_toolbox() -> Toolbox:
    """Look at torch_npu, which must be imported already."""
    return Toolbox(
        capability_of=probe,
        offers=lambda operator: hasattr(torch.ops.npu, operator),
        mindie=find_library("mindiesd", needs=("attention_forward",), install=_MINDIE),
    )
