"""The calls of torch_npu's attention operators, in layout BSND."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from stepvideo_core.errors import InvalidRequest

# Token windows: everything before and after.
_ALL_TOKENS = 2147483647
_COMPRESSED_CAUSAL = 2
_TRIANGLE = 2048
MAX_TOKENS_310P = 65536

Core = Callable[[Tensor, Tensor, Tensor, float, bool], Tensor]
"""q_BSHD, k_BTGD, v_BTGD (contiguous), scale, causal -> [B, S, H, D]."""


@functools.lru_cache(maxsize=16)
def causal_triangle(device: torch.device) -> Tensor:
    """The bool mask of sparse_mode 2, [2048, 2048] with True above the diagonal: True is masked.

    Its size is fixed whatever the sequence; 4 MiB per device, built once.
    """
    ones = torch.ones(_TRIANGLE, _TRIANGLE, dtype=torch.bool, device="cpu")
    return ones.triu(1).to(device)


def _per_length(
    core: Core, q: Tensor, k: Tensor, v: Tensor, scale: float, lengths: tuple[int, ...]
) -> Tensor:
    """Samples of one length together, others one by one; each sees a view of its keys.

    The alternative, layout TND, wants the samples packed without padding, which copies the keys;
    and with sparse_mode 0 and no mask one of the operators has been seen to average them.
    """
    if len(set(lengths)) == 1:
        k, v = (x[:, : lengths[0]].contiguous() for x in (k, v))
        return core(q, k, v, scale, False)
    samples = []
    for index, length in enumerate(lengths):
        one = slice(index, index + 1)
        keys, values = (x[one, :length].contiguous() for x in (k, v))
        samples.append(core(q[one], keys, values, scale, False))
    return torch.cat(samples)


def fusion_attention(
    q_BSHD: Tensor,
    k_BTGD: Tensor,
    v_BTGD: Tensor,
    scale: float,
    causal: bool,
    key_lengths: tuple[int, ...] | None,
    slopes_H: Tensor | None,
) -> Tensor:
    """npu_fusion_attention, the training-grade kernel; also float32 and heads up to 768 wide.

    Its pse argument could carry a bias, but formula and example of its documentation disagree on
    whether the scale applies to it; and pse_type 3 of v2, a square root of the distance, has no
    published formula. A site with a bias is refused.
    """
    assert slopes_H is None, "a site with a position bias is refused"
    q, k, v = (x.contiguous() for x in (q_BSHD, k_BTGD, v_BTGD))
    if key_lengths is not None:
        return _per_length(_fusion, q, k, v, scale, key_lengths)
    return _fusion(q, k, v, scale, causal)


def _fusion(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool) -> Tensor:
    return torch.ops.npu.npu_fusion_attention(
        q,
        k,
        v,
        q.shape[2],
        "BSND",
        atten_mask=causal_triangle(q.device) if causal else None,
        scale=scale,
        keep_prob=1.0,
        pre_tockens=_ALL_TOKENS,
        next_tockens=_ALL_TOKENS,
        inner_precise=0,
        sparse_mode=_COMPRESSED_CAUSAL if causal else 0,
    )[0]


def fused_infer_attention(
    q_BSHD: Tensor,
    k_BTGD: Tensor,
    v_BTGD: Tensor,
    scale: float,
    causal: bool,
    key_lengths: tuple[int, ...] | None,
    slopes_H: Tensor | None,
) -> Tensor:
    """npu_fused_infer_attention_score, which takes key lengths as host integers, without a mask.

    Contiguous inputs in half precision only; inner_precise 0 is its accurate mode.
    """
    assert slopes_H is None, "a site with a position bias is refused"
    q, k, v = (x.contiguous() for x in (q_BSHD, k_BTGD, v_BTGD))
    return torch.ops.npu.npu_fused_infer_attention_score(
        q,
        k,
        v,
        num_heads=q.shape[2],
        num_key_value_heads=k.shape[2],
        scale=scale,
        input_layout="BSND",
        atten_mask=causal_triangle(q.device) if causal else None,
        sparse_mode=_COMPRESSED_CAUSAL if causal else 0,
        actual_seq_lengths_kv=None if key_lengths is None else list(key_lengths),
        pre_tokens=_ALL_TOKENS,
        next_tokens=_ALL_TOKENS,
        inner_precise=0,
        softmax_lse_flag=False,
    )[0]


def prompt_flash_attention(
    q_BSHD: Tensor,
    k_BTGD: Tensor,
    v_BTGD: Tensor,
    scale: float,
    causal: bool,
    key_lengths: tuple[int, ...] | None,
    slopes_H: Tensor | None,
) -> Tensor:
    """npu_prompt_flash_attention on the inference cards: float16, 65,536 tokens at most.

    Its default of next_tokens, 0, would hide every later key. Raises InvalidRequest for a longer
    sequence, whose length no call site knows in advance.
    """
    assert slopes_H is None and not causal, "a site with a bias or a causal mask is refused"
    tokens = max(q_BSHD.shape[1], k_BTGD.shape[1])
    if tokens > MAX_TOKENS_310P:
        raise InvalidRequest(
            f"npu:prompt_flash takes {MAX_TOKENS_310P} tokens and this video has {tokens}: ask for "
            "fewer frames or a smaller size, or take --op attention=npu:chunked"
        )
    q, k, v = (x.contiguous() for x in (q_BSHD, k_BTGD, v_BTGD))
    if key_lengths is not None:
        return _per_length(_prompt_flash, q, k, v, scale, key_lengths)
    return _prompt_flash(q, k, v, scale, False)


def _prompt_flash(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool) -> Tensor:
    return torch.ops.npu.npu_prompt_flash_attention(
        q,
        k,
        v,
        num_heads=q.shape[2],
        num_key_value_heads=k.shape[2],
        scale_value=scale,
        input_layout="BSND",
        pre_tokens=_ALL_TOKENS,
        next_tokens=_ALL_TOKENS,
        sparse_mode=0,
    )
