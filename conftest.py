"""What must happen before any test, and any other conftest, is imported."""

import os

# Triton decides at its import whether kernels are compiled or interpreted, and transformers imports
# it, so this must come before every other import of the suite. Device runs have their own script.
os.environ.setdefault("TRITON_INTERPRET", "1")
