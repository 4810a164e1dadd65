"""All cases of the parity suite: the model's sites, and what usually breaks."""

from __future__ import annotations

from stepvideo_core.testing.case import Case
from stepvideo_core.testing.transformer_cases import TRANSFORMER_CASES
from stepvideo_core.testing.vae_cases import VAE_CASES

CASES: tuple[Case, ...] = (*TRANSFORMER_CASES, *VAE_CASES)
