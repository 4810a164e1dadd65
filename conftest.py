"""What must happen before any test, and any other conftest, is imported."""

import os

# Triton decides at its import whether kernels are compiled or interpreted, and transformers imports
# it, so this must come before every other import of the suite. Device runs have their own script.
os.environ.setdefault("TRITON_INTERPRET", "1")

# Where torch_npu is installed, `import torch` would load it at once, and fail without CANN. The
# tests that want it (tests/npu) load it themselves.
os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
