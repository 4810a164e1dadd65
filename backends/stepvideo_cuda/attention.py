"""Attention by flash-attn 4, 3 and 2, by torch's cuDNN, flash and memory-efficient kernels, and by
our own streaming softmax.

Key lengths cost a view, never a mask: samples of one length are trimmed together, others one by
one. (The alternative for the latter, flash-attn's packed variable lengths, would copy the keys; a
batch has two samples at most here, and each is thousands of queries.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from stepvideo_core.dispatch import Library
from stepvideo_core.ops import ATTENTION, Attention, AttentionSite, OpImpl, Site
from stepvideo_cuda.capability import Architecture, Capability
from stepvideo_cuda.toolbox import Toolbox

_HALF = (torch.bfloat16, torch.float16)
_HALF_AND_SINGLE = (*_HALF, torch.float32)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an attention library takes: compute capabilities from `oldest` to `newest`, and so on.

    grouped: whether query heads may share key heads.
    """

    dtypes: tuple[torch.dtype, ...]
    head_dim: int
    oldest: tuple[int, int]
    newest: tuple[int, int]
    grouped: bool = True


LIMITS: dict[str, Limits] = {
    # flash-attn 4 is written for 9.0 and 10.x; its 12.x kernels are younger than our knowledge.
    "flash4": Limits(dtypes=_HALF, head_dim=128, oldest=(9, 0), newest=(10, 3)),
    "flash3": Limits(dtypes=_HALF, head_dim=256, oldest=(9, 0), newest=(9, 0)),
    "flash2": Limits(dtypes=_HALF, head_dim=256, oldest=(8, 0), newest=(12, 1)),
    # torch lets cuDNN take 256 on 9.0 and 10.0 with some versions of cuDNN only; 128 always.
    "sdpa_cudnn": Limits(dtypes=_HALF, head_dim=128, oldest=(8, 0), newest=(12, 1), grouped=False),
    "sdpa_flash": Limits(dtypes=_HALF, head_dim=256, oldest=(8, 0), newest=(12, 1), grouped=False),
    "sdpa_efficient": Limits(
        dtypes=_HALF_AND_SINGLE, head_dim=65536, oldest=(5, 0), newest=(12, 1), grouped=False
    ),
}

# Best first. Published forward rates at head_dim 128, not causal; where two sources disagree the
# one with video shapes counts. Our own kernel is behind the libraries until it has been measured,
# but before `sdpa_efficient`, which keeps the accumulator of a 512-wide head in global memory.
ORDER: dict[Architecture, tuple[str, ...]] = {
    # H100, 16k tokens: FA3 648 TFLOP/s, cuDNN 595, FA2 370, torch's flash 355 (H200); FA4 on
    # Hopper: no figure.
    "hopper": (
        "flash3",
        "sdpa_cudnn",
        "flash4",
        "flash2",
        "sdpa_flash",
        "triton",
        "sdpa_efficient",
    ),
    # B200: cuDNN 9.19 is 1.24-1.98x FA4 on 11 diffusion shapes; FA4's paper says 1.3x the other
    # way on others.
    "blackwell": ("sdpa_cudnn", "flash4", "flash2", "sdpa_flash", "triton", "sdpa_efficient"),
    # 12.0: cuDNN ahead by 3-10 % at 24,960 video tokens (0.88x in a sweep of other shapes).
    "blackwell_rtx": ("sdpa_cudnn", "flash2", "sdpa_flash", "triton", "sdpa_efficient"),
    # 8.9: cuDNN reported ahead.
    "ada": ("sdpa_cudnn", "flash2", "sdpa_flash", "triton", "sdpa_efficient"),
    # cuDNN is 0.82x flash on A100 and 0.93x on A10G.
    "ampere": ("flash2", "sdpa_flash", "sdpa_cudnn", "triton", "sdpa_efficient"),
}
_OTHERS = ("sdpa_cudnn", "flash2", "sdpa_flash", "triton", "sdpa_efficient")


def rank(name: str, architecture: Architecture) -> int:
    """Higher is earlier; 0 for what the architecture's order does not name."""
    order = ORDER.get(architecture, _OTHERS)
    return 10 * (len(order) - order.index(name)) if name in order else 0


def refusals(limits: Limits, site: Site, capability: Capability) -> list[str]:
    """Why a library with these limits cannot serve a site on a device."""
    assert isinstance(site, AttentionSite)
    if capability.interpreted:
        return ["it needs a CUDA device; this is Triton's interpreter on the CPU"]
    reasons = []
    if not limits.oldest <= capability.version <= limits.newest:
        span = " to ".join(".".join(map(str, end)) for end in (limits.oldest, limits.newest))
        reasons.append(f"it takes compute capability {span}; this is {capability}")
    if site.dtype not in limits.dtypes:
        takes = ", ".join(map(_dtype_name, limits.dtypes))
        reasons.append(f"it takes {takes}, not {_dtype_name(site.dtype)}")
    elif site.dtype == torch.bfloat16 and capability.version < (8, 0):
        reasons.append(f"bfloat16 needs compute capability 8.0; this is {capability}")
    if site.head_dim > limits.head_dim:
        reasons.append(f"head_dim {site.head_dim} > {limits.head_dim}")
    if site.head_dim % 8:
        reasons.append(f"head_dim {site.head_dim} is not a multiple of 8")
    if site.sqrt_bias:
        reasons.append("it takes no position bias")
    if site.num_heads != site.num_kv_heads and not limits.grouped:
        reasons.append(
            f"it wants a key head for each query head, not {site.num_kv_heads} for {site.num_heads}"
        )
    return reasons


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


Core = Callable[[Tensor, Tensor, Tensor, float, bool], Tensor]
"""q_BSHD, k_BTGD, v_BTGD (dense in the last axis), scale, causal -> [B, S, H, D]."""


def by_length(core: Core) -> Attention:
    """The contract's callable for a core that knows neither key lengths nor a bias."""

    def attention(
        q_BSHD: Tensor,
        k_BTGD: Tensor,
        v_BTGD: Tensor,
        scale: float,
        causal: bool,
        key_lengths: tuple[int, ...] | None,
        slopes_H: Tensor | None,
    ) -> Tensor:
        assert slopes_H is None, "a site with a position bias is refused"
        q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q_BSHD, k_BTGD, v_BTGD))
        if key_lengths is None:
            return core(q, k, v, scale, causal)
        if len(set(key_lengths)) == 1:
            length = key_lengths[0]
            return core(q, k[:, :length], v[:, :length], scale, causal)
        samples = [
            core(q[i : i + 1], k[i : i + 1, :length], v[i : i + 1, :length], scale, causal)
            for i, length in enumerate(key_lengths)
        ]
        return torch.cat(samples)

    return attention


def flash_core(library: Library) -> Core:
    """`flash_attn_func` of flash-attn 2, 3 or 4; some versions return the log-sum-exp as well."""

    def flash_attention(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool) -> Tensor:
        # flash-attn 4 launches on the current device, whatever device the tensors are on.
        with torch.cuda.device_of(q):
            result = library.module.flash_attn_func(q, k, v, softmax_scale=scale, causal=causal)
        return result[0] if isinstance(result, tuple) else result

    return flash_attention


def sdpa_core(backend: SDPBackend) -> Core:
    """One named kernel of torch's attention; torch raises where that kernel cannot do it."""

    def sdpa_attention(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool) -> Tensor:
        with sdpa_kernel(backend):
            out_BHSD = F.scaled_dot_product_attention(
                q.transpose(1, 2),
                k.transpose(1, 2),
                v.transpose(1, 2),
                is_causal=causal,
                scale=scale,
            )
        return out_BHSD.transpose(1, 2)

    return sdpa_attention


def implementations(toolbox: Toolbox) -> list[OpImpl[Any]]:
    def library_impl(name: str, core: Core, library: Library | None = None) -> OpImpl[Any]:
        def why_not(site: Site) -> list[str]:
            missing = library.why_not() if library is not None else []
            return missing + refusals(LIMITS[name], site, toolbox.capability_of(site.device))

        return OpImpl(
            op=ATTENTION,
            name=name,
            fn=by_length(core),
            rank=rank(name, toolbox.ranks_for.architecture),
            why_not=why_not,
        )

    def triton_attention(
        q_BSHD: Tensor,
        k_BTGD: Tensor,
        v_BTGD: Tensor,
        scale: float,
        causal: bool,
        key_lengths: tuple[int, ...] | None,
        slopes_H: Tensor | None,
    ) -> Tensor:
        return toolbox.kernels.module.triton_attention(
            q_BSHD, k_BTGD, v_BTGD, scale, causal, key_lengths, slopes_H
        )

    def triton_why_not(site: Site) -> list[str]:
        assert isinstance(site, AttentionSite)
        reasons = toolbox.triton_why_not(site)
        if site.dtype not in _HALF_AND_SINGLE:
            reasons.append(f"it accumulates in float32, too little for {_dtype_name(site.dtype)}")
        if site.head_dim > 512:
            reasons.append(f"head_dim {site.head_dim} > 512 does not fit the shared memory")
        return reasons

    return [
        library_impl("flash4", flash_core(toolbox.flash4), toolbox.flash4),
        library_impl("flash3", flash_core(toolbox.flash3), toolbox.flash3),
        library_impl("flash2", flash_core(toolbox.flash2), toolbox.flash2),
        library_impl("sdpa_cudnn", sdpa_core(SDPBackend.CUDNN_ATTENTION)),
        library_impl("sdpa_flash", sdpa_core(SDPBackend.FLASH_ATTENTION)),
        library_impl("sdpa_efficient", sdpa_core(SDPBackend.EFFICIENT_ATTENTION)),
        OpImpl(
            op=ATTENTION,
            name="triton",
            fn=triton_attention,
            rank=rank("triton", toolbox.ranks_for.architecture),
            why_not=triton_why_not,
        ),
    ]
