"""Randomness that belongs to a sample, not to a process.

Every random number of a training follows from the seed, the step and the sample's place in the
batch. So a run goes on after a stop exactly as it would have, and any number of processes draws the
same batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class SampleRandom:
    """The random numbers of one sample of one step; every purpose has a stream of its own."""

    seed: int
    step: int
    index: int

    def numpy(self, purpose: int) -> np.random.Generator:
        """A generator for choices."""
        return np.random.default_rng([self.seed, self.step, self.index, purpose])

    def normal(self, shape: tuple[int, ...], purpose: int) -> Tensor:
        """Standard normal float32 numbers on the CPU."""
        words = np.random.SeedSequence([self.seed, self.step, self.index, purpose])
        generator = torch.Generator().manual_seed(int(words.generate_state(1, np.uint64)[0] >> 1))
        return torch.randn(shape, generator=generator)


SCENE, CAPTION, LATENT, NOISE, TIME, DROP, WINDOW = range(7)
"""Purposes."""
