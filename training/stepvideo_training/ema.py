"""Exponential moving average of the parameters: the weights that are evaluated and shipped."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class Ema:
    """Averages named parameters; young averages forget faster, so that the start leaves no trace.

    The decay after n updates is min(decay, (1 + n) / (10 + n)).
    """

    def __init__(self, parameters: dict[str, nn.Parameter], decay: float) -> None:
        self._parameters = parameters
        self._decay = decay
        self.state: dict[str, Tensor] = {
            name: parameter.detach().clone() for name, parameter in parameters.items()
        }

    @torch.no_grad()
    def update(self, num_updates: int) -> None:
        """Take the parameters in; num_updates: how often that was done before."""
        decay = min(self._decay, (1 + num_updates) / (10 + num_updates))
        for name, average in self.state.items():
            average.lerp_(self._parameters[name].detach(), 1 - decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the parameters are the averages."""
        with torch.no_grad():
            kept = {name: p.detach().clone() for name, p in self._parameters.items()}
            self._load(self.state)
        try:
            yield
        finally:
            with torch.no_grad():
                self._load(kept)

    def _load(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(values[name])
