"""AdaLN modulation, its gate, and the GELU between the two feed-forward projections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from stepvideo_core.ops.contract import OpContract, Site
from stepvideo_core.ops.cost import Cost, tensor_bytes


class AdaLNModulate(Protocol):
    """LayerNorm, then x * (1 + scale) + shift."""

    def __call__(
        self,
        x_BSD: Tensor,
        weight_D: Tensor | None,
        bias_D: Tensor | None,
        eps: float,
        shift_BD: Tensor,
        scale_BD: Tensor,
    ) -> Tensor:
        """Normalise and modulate tokens.

        x_BSD: [B, S, D]. weight_D, bias_D: LayerNorm's affine parameters, both given or both None.
        shift_BD, scale_BD: one row per sample, in x's dtype.

        Returns [B, S, D] in x's dtype. Statistics and arithmetic in float32 (float64 for float64
        inputs), rounded once.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class ModulationSite(Site):
    """Traits of a modulation call place: model width, and whether the norm has parameters."""

    width: int
    affine: bool = False


def _adaln_modulate_cost(
    x_BSD: Tensor,
    weight_D: Tensor | None,
    bias_D: Tensor | None,
    eps: float,
    shift_BD: Tensor,
    scale_BD: Tensor,
) -> Cost:
    rows = tensor_bytes(weight_D, bias_D, shift_BD, scale_BD)
    return Cost(num_bytes=2 * tensor_bytes(x_BSD) + rows)


ADALN_MODULATE = OpContract[AdaLNModulate](
    name="adaln_modulate", call=AdaLNModulate.__call__, cost=_adaln_modulate_cost
)


class GatedResidual(Protocol):
    """x + gate * y."""

    def __call__(self, x_BSD: Tensor, y_BSD: Tensor, gate_BD: Tensor) -> Tensor:
        """Add a branch to the residual stream.

        x_BSD, y_BSD: [B, S, D]; gate_BD: one row per sample, used as it is (no tanh).
        Returns a new [B, S, D] in x's dtype; float32 inside (float64 for float64), rounded once.
        """
        ...


def _gated_residual_cost(x_BSD: Tensor, y_BSD: Tensor, gate_BD: Tensor) -> Cost:
    return Cost(num_bytes=2 * tensor_bytes(x_BSD) + tensor_bytes(y_BSD, gate_BD))


GATED_RESIDUAL = OpContract[GatedResidual](
    name="gated_residual", call=GatedResidual.__call__, cost=_gated_residual_cost
)


class GeluTanh(Protocol):
    """GELU in its tanh form, the one the network was trained with."""

    def __call__(self, x: Tensor) -> Tensor:
        """0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), elementwise, any shape.

        Returns x's shape and dtype; float32 inside (float64 for float64), rounded once.
        """
        ...


def _gelu_tanh_cost(x: Tensor) -> Cost:
    return Cost(num_bytes=2 * tensor_bytes(x))


GELU_TANH = OpContract[GeluTanh](name="gelu_tanh", call=GeluTanh.__call__, cost=_gelu_tanh_cost)
