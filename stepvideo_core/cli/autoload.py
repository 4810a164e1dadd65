"""torch imports torch_npu by itself, and dies with it: our commands hold that back.

Where torch_npu is installed, `import torch` imports it through the entry point `torch.backends`. If
CANN is missing, broken or not sourced, that import fails, and torch with it, before any of our code
could say why. So the command line switches it off for its own process and what it starts, as torch
documents, and the npu backend imports torch_npu itself when it is asked for.
"""

from __future__ import annotations

import importlib.util
import os
import sys

AUTOLOAD = "TORCH_DEVICE_BACKEND_AUTOLOAD"


def hold_back_torch_npu() -> bool:
    """Keep a later `import torch` from importing torch_npu; whether that was necessary.

    Does nothing where torch_npu is not installed, torch is imported already, or the user has set
    the variable.
    """
    if "torch" in sys.modules or AUTOLOAD in os.environ:
        return False
    if importlib.util.find_spec("torch_npu") is None:
        return False
    os.environ[AUTOLOAD] = "0"
    return True
