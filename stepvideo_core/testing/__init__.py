"""The parity suite: cases for every operator and the judge of every implementation.

Importable by out-of-tree backends: `run_parity(registry, backends=[...])` is
all that their tests need.
"""

from stepvideo_core.testing.case import Case, Inputs
from stepvideo_core.testing.cases import CASES
from stepvideo_core.testing.parity import FLOORS, ParityResult, check, run_parity

__all__ = ["CASES", "FLOORS", "Case", "Inputs", "ParityResult", "check", "run_parity"]
