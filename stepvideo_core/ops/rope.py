"""Three-axis rotary position embedding, alone and fused with the query/key normalisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from stepvideo_core.ops.contract import Binder, OpContract, Site
from stepvideo_core.ops.cost import Cost, tensor_bytes
from stepvideo_core.ops.norm import RMS_NORM, RMSNormSite


class Rope3D(Protocol):
    """Rotate each head's channels by the token's (frame, row, column)."""

    def __call__(
        self, x_BSHD: Tensor, cos_SD: Tensor, sin_SD: Tensor, axes: tuple[int, int, int]
    ) -> Tensor:
        """x * cos + rotate_half(x) * sin, in three independent channel groups.

        x_BSHD: [B, S, H, D], any strides.
        cos_SD, sin_SD: [S, D] float32 (float64 for float64 inputs), one row per token; inside a
            group of width w the columns k and k + w/2 hold the same angle.
        axes: widths of the groups, summing to D. rotate_half maps the halves (a | b) of a group
            to (-b | a).

        Returns [B, S, H, D] in x's dtype; products and sum in the tables' dtype, rounded once.
        The rounding of the angles themselves is the tables' business (`models.embeddings`).
        """
        ...


@dataclass(frozen=True, kw_only=True)
class RopeSite(Site):
    """Traits of a rotary call place."""

    num_heads: int
    head_dim: int
    axes: tuple[int, int, int]


def _rope_3d_cost(
    x_BSHD: Tensor, cos_SD: Tensor, sin_SD: Tensor, axes: tuple[int, int, int]
) -> Cost:
    return Cost(num_bytes=2 * tensor_bytes(x_BSHD) + tensor_bytes(cos_SD, sin_SD))


ROPE_3D = OpContract[Rope3D](name="rope_3d", call=Rope3D.__call__, cost=_rope_3d_cost)


class QKNormRope(Protocol):
    """RMSNorm and RoPE-3D of queries and keys, straight from the packed projection."""

    def __call__(
        self,
        qkv_BSHX: Tensor,
        q_weight_D: Tensor,
        k_weight_D: Tensor,
        eps: float,
        cos_SD: Tensor,
        sin_SD: Tensor,
        axes: tuple[int, int, int],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Unpack, normalise, rotate.

        qkv_BSHX: [B, S, H, 3 D], per head [q | k | v].
        q_weight_D, k_weight_D: RMSNorm weights [D], shared by all heads.

        Returns q, k, v [B, S, H, D] in the input's dtype: q and k as `rope_3d(rms_norm(.))`,
        v unchanged (it may be a view of the input). An implementation may keep float32 between
        the two steps.
        """
        ...


def _compose_qk_norm_rope(plan: Binder, site: Site) -> QKNormRope:
    assert isinstance(site, RopeSite)
    rope_3d = plan.bind(ROPE_3D, site)
    rms_norm = plan.bind(RMS_NORM, RMSNormSite(name=site.name, width=site.head_dim))

    def qk_norm_rope(
        qkv_BSHX: Tensor,
        q_weight_D: Tensor,
        k_weight_D: Tensor,
        eps: float,
        cos_SD: Tensor,
        sin_SD: Tensor,
        axes: tuple[int, int, int],
    ) -> tuple[Tensor, Tensor, Tensor]:
        q_BSHD, k_BSHD, v_BSHD = qkv_BSHX.chunk(3, dim=-1)
        q_BSHD = rope_3d(rms_norm(q_BSHD, q_weight_D, eps), cos_SD, sin_SD, axes)
        k_BSHD = rope_3d(rms_norm(k_BSHD, k_weight_D, eps), cos_SD, sin_SD, axes)
        return q_BSHD, k_BSHD, v_BSHD

    return qk_norm_rope


def _qk_norm_rope_cost(
    qkv_BSHX: Tensor,
    q_weight_D: Tensor,
    k_weight_D: Tensor,
    eps: float,
    cos_SD: Tensor,
    sin_SD: Tensor,
    axes: tuple[int, int, int],
) -> Cost:
    """Queries and keys in and out; the values may stay where they are."""
    tables = tensor_bytes(q_weight_D, k_weight_D, cos_SD, sin_SD)
    return Cost(num_bytes=2 * (tensor_bytes(qkv_BSHX) * 2 // 3) + tables)


QK_NORM_ROPE = OpContract[QKNormRope](
    name="qk_norm_rope",
    call=QKNormRope.__call__,
    cost=_qk_norm_rope_cost,
    parts=(RMS_NORM, ROPE_3D),
    compose=_compose_qk_norm_rope,
)
