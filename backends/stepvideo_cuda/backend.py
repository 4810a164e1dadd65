"""The CUDA backend, as a record that costs nothing to make.

For tests only, STEPVIDEO_CUDA_INTERPRET=1 together with TRITON_INTERPRET=1, both set before Python
starts, registers it for the CPU, with the Triton kernels run by Triton's interpreter: slow, and
used only when named (`--backend cuda`), never by `auto`.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from typing import Any

import torch

from stepvideo_core import __version__
from stepvideo_core.dispatch import Backend
from stepvideo_core.ops import OpImpl

INTERPRET = "STEPVIDEO_CUDA_INTERPRET"


def _why_not() -> list[str]:
    if torch.version.hip is not None:
        return [f"this torch ({torch.__version__}) is built for ROCm, not for CUDA"]
    if torch.version.cuda is None:
        return [
            f"this torch ({torch.__version__}) is built without CUDA; install a CUDA build from "
            "https://pytorch.org/get-started/locally"
        ]
    if not torch.cuda.is_available():
        return [
            "torch sees no CUDA device; `nvidia-smi` shows whether the driver does, and the driver "
            f"must be new enough for CUDA {torch.version.cuda}"
        ]
    return []


def _interpreter_why_not() -> list[str]:
    reasons = []
    if importlib.util.find_spec("triton") is None:
        reasons.append(f"{INTERPRET}=1 needs triton, which is not installed: pip install triton")
    if os.environ.get("TRITON_INTERPRET") != "1":
        reasons.append(f"{INTERPRET}=1 needs TRITON_INTERPRET=1 in the environment as well")
    elif "triton" in sys.modules and _compiles(sys.modules["triton"]):
        reasons.append(
            "triton was imported before TRITON_INTERPRET=1 was set; set it before Python starts"
        )
    return reasons


def _compiles(triton: Any) -> bool:
    """Whether Triton's own library functions were made for the compiler, not the interpreter."""
    return isinstance(triton.language.sum, triton.runtime.JITFunction)


def _load(interpreting: bool) -> Sequence[OpImpl[Any]]:
    from stepvideo_cuda import attention, convolution, linear, modulation, norm, rope
    from stepvideo_cuda.toolbox import find_toolbox

    toolbox = find_toolbox(interpreting=interpreting)
    families = (linear, attention, norm, rope, modulation, convolution)
    return [impl for family in families for impl in family.implementations(toolbox)]


def _describe() -> list[str]:
    from stepvideo_cuda.capability import describe_devices

    return describe_devices()


def cuda_backend() -> Backend:
    """The backend for NVIDIA devices, or its interpreted double if the test switch is set."""
    if os.environ.get(INTERPRET) == "1":
        return Backend(
            name="cuda",
            device_type="cpu",
            why_not=_interpreter_why_not,
            load=lambda: _load(True),
            rank=None,
            version=__version__,
            summary=f"Triton kernels interpreted on the CPU, for tests ({INTERPRET}=1)",
            emulation="Triton's interpreter on the CPU",
        )
    return Backend(
        name="cuda",
        device_type="cuda",
        why_not=_why_not,
        load=lambda: _load(False),
        rank=100,
        describe=_describe,
        version=__version__,
        summary="NVIDIA GPUs: flash-attn, cuDNN and torch attention, Triton kernels",
    )
