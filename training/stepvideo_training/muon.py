"""Muon for matrices, AdamW for everything else, as one optimiser.

Muon replaces the momentum of a weight matrix by the nearest matrix whose singular values are all
about 1 (Jordan et al. 2024, by a quintic Newton-Schulz iteration), scaled so that an entry moves as
far as under AdamW with the same learning rate (Liu et al. 2025). On the small models here it
reached at equal steps about half the loss of AdamW.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stepvideo_training.processes import full_tensor, local, own_part

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the Newton-Schulz step a X + b (X X') X + c (X X')^2 X: steep at 0, within 0.7-1.2 at 1."""
_ITERATIONS = 5
_ADAMW_RMS = 0.2
"""Typical root mean square of an AdamW update, in learning rates."""
_MIN_ROWS, _MIN_ELEMENTS = 16, 4096


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """matrices: whether Muon takes the weight matrices; the rest of the settings are AdamW's,
    except `momentum`, which is Muon's."""

    matrices: bool = True
    momentum: float = 0.95
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-8
    weight_decay: float = 0.0


class Muon:
    """Updates named parameters in place; its state is a flat dict of tensors.

    Parameters with an embedding in their name, vectors and small matrices go to AdamW. Sharded
    parameters (FSDP2) are gathered for the iteration, which every process then does alike.
    """

    def __init__(
        self, parameters: Iterable[tuple[str, nn.Parameter]], settings: OptimizerSettings
    ) -> None:
        self.settings = settings
        self.parameters = dict(parameters)
        self.num_steps = 0
        self._first = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self._second = {
            name: torch.zeros_like(p)
            for name, p in self.parameters.items()
            if not self._is_matrix(name, p)
        }

    def _is_matrix(self, name: str, parameter: Tensor) -> bool:
        return (
            self.settings.matrices
            and parameter.ndim >= 2
            and parameter.shape[0] >= _MIN_ROWS
            and parameter.numel() >= _MIN_ELEMENTS
            and "embeddings" not in name
            and "scale_shift_table" not in name
        )

    @torch.no_grad()
    def step(self, lr: Mapping[str, float] | float) -> None:
        """One update from the gradients. lr: for all parameters, or by parameter name."""
        self.num_steps += 1
        for name, parameter in self.parameters.items():
            if parameter.grad is None:
                continue
            rate = lr if isinstance(lr, float) else lr[name]
            grad = parameter.grad.to(parameter.dtype)
            parameter.mul_(1 - rate * self.settings.weight_decay)
            if name in self._second:
                self._adamw(name, parameter, grad, rate)
            else:
                self._muon(name, parameter, grad, rate)

    def _muon(self, name: str, parameter: Tensor, grad: Tensor, rate: float) -> None:
        momentum = self._first[name]
        momentum.lerp_(grad, 1 - self.settings.momentum)
        nesterov = grad.lerp(momentum, self.settings.momentum)
        full = full_tensor(nesterov)
        matrix = orthogonalise(full.flatten(1))
        update = (matrix * (_ADAMW_RMS * max(matrix.shape) ** 0.5)).view(full.shape)
        update = update.to(parameter.dtype)
        local(parameter).add_(own_part(parameter, update), alpha=-rate)

    def _adamw(self, name: str, parameter: Tensor, grad: Tensor, rate: float) -> None:
        settings = self.settings
        first, second = self._first[name], self._second[name]
        first.lerp_(grad, 1 - settings.beta1)
        second.lerp_(grad.square(), 1 - settings.beta2)
        mean = first / (1 - settings.beta1**self.num_steps)
        variance = second / (1 - settings.beta2**self.num_steps)
        parameter.addcdiv_(mean, variance.sqrt().add_(settings.eps), value=-rate)

    def zero_grad(self) -> None:
        for parameter in self.parameters.values():
            parameter.grad = None

    @property
    def state(self) -> dict[str, Tensor]:
        """The buffers themselves: what a checkpoint saves, and copies back into."""
        return {
            **{f"first.{name}": tensor for name, tensor in self._first.items()},
            **{f"second.{name}": tensor for name, tensor in self._second.items()},
        }


def orthogonalise(matrix: Tensor) -> Tensor:
    """About U V' of the singular value decomposition U S V' of a matrix, in bfloat16."""
    a, b, c = _COEFFICIENTS
    x = matrix.bfloat16()
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    x = x / (x.norm() + 1e-12)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x
