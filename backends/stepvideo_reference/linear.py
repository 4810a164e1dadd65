"""Projections: torch's own, and oneDNN's matrix product where torch would take another library."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stepvideo_core.ops import LINEAR, OpImpl, Site


def eager_linear(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    """The meaning of the operator."""
    return F.linear(x, weight_OI, bias_O)


def onednn_linear(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    """The same through oneDNN, by the operator that torch.compile uses for it.

    In float32 torch calls MKL, which on processors that are not Intel's leaves their widest
    instructions alone: 155 against 205 GFLOP/s at 1536 x 1024 x 4096 on two cores of an EPYC.
    """
    return torch.ops.mkldnn._linear_pointwise(x, weight_OI, bias_O, "none", [], "")


def _onednn_why_not(site: Site) -> list[str]:
    reasons = []
    if site.device.type != "cpu":
        reasons.append(f"oneDNN computes on the cpu here, not on {site.device.type}")
    if site.dtype != torch.float32:
        name = str(site.dtype).removeprefix("torch.")
        reasons.append(f"it pays in float32 only; in {name} torch takes the best library itself")
    if not torch.backends.mkldnn.is_available():
        reasons.append("this torch was built without oneDNN")
    elif not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        reasons.append(f"torch {torch.__version__} does not offer oneDNN's product alone")
    return reasons


IMPLS = (
    OpImpl(op=LINEAR, name="eager", fn=eager_linear),
    OpImpl(op=LINEAR, name="onednn", fn=onednn_linear, rank=10, why_not=_onednn_why_not),
)
