"""Other libraries import torch_npu because it is installed, and die with it: that is held back.

Where torch_npu is installed, `import torch` imports it through the entry point `torch.backends`,
and transformers imports it as well. If CANN is missing, broken or not sourced, that import fails,
and torch or transformers with it, before any of our code could say why. So the command line
switches torch's autoload off, for its own process and what that starts, as torch documents; and if
CANN's libraries do not open, it makes `import torch_npu` fail as if it were not installed. The npu
backend imports torch_npu itself when it is asked for, and says what is missing.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys

AUTOLOAD = "TORCH_DEVICE_BACKEND_AUTOLOAD"
# What torch_npu links to and CANN brings.
CANN_LIBRARIES = (
    "libascendcl.so",
    "libhccl.so",
    "libacl_op_compiler.so",
    "libge_runner.so",
    "libgraph.so",
)


def hold_back_torch_npu() -> None:
    """Keep torch and transformers from importing torch_npu where that would end the process.

    Does nothing where torch_npu is not installed or torch is imported already. Where CANN's
    libraries open, a user who has switched the autoload on keeps it.
    """
    if "torch" in sys.modules or importlib.util.find_spec("torch_npu") is None:
        return
    if missing_cann_library() is None:
        os.environ.setdefault(AUTOLOAD, "0")
    else:
        os.environ[AUTOLOAD] = "0"
        hide_torch_npu()


def hide_torch_npu() -> None:
    """Let nobody import torch_npu in this process, for it cannot be imported.

    None is Python's own way to say that a module is not there: find_spec returns None too.
    """
    sys.modules["torch_npu"] = None  # type: ignore[assignment]


def missing_cann_library() -> OSError | None:
    """What the system says about the first library of CANN that does not open; None if all do."""
    for name in CANN_LIBRARIES:
        try:
            ctypes.CDLL(name)
        except OSError as error:
            return error
    return None
