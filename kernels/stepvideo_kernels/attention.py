"""Attention as a streaming softmax, for what no library takes: heads of 512 and a distance bias.

No score matrix exists: a program walks over the keys with a running maximum and sum. Heads wider
than a tile are read in chunks for the logits, and the output's columns are shared out among
programs, so that 512 channels fit the registers and the shared memory of any card.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from stepvideo_kernels.launch import interpreted, launch, power_of_2, wide


@triton.jit
def _attention_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    out_ptr,
    lengths_ptr,
    slopes_ptr,
    num_queries,
    num_keys,
    num_heads,
    heads_per_key,
    scale,
    q_batch_stride,
    q_token_stride,
    q_head_stride,
    k_batch_stride,
    k_token_stride,
    k_head_stride,
    v_batch_stride,
    v_token_stride,
    v_head_stride,
    CAUSAL: tl.constexpr,
    LENGTHS: tl.constexpr,
    SLOPES: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    CHUNK: tl.constexpr,
    VALUES: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """One block of queries of one head, and VALUES columns of its output.

    q, k and v are dense in the last axis. UPCAST: multiply float32 copies of the tiles (the
    interpreter cannot multiply bfloat16).
    """
    NUM_CHUNKS: tl.constexpr = (HEAD_DIM + CHUNK - 1) // CHUNK
    NUM_PARTS: tl.constexpr = (HEAD_DIM + VALUES - 1) // VALUES
    # The longest rows of a causal head are started first; the short ones fill the gaps at the end.
    block = tl.program_id(0) // NUM_PARTS
    if CAUSAL:
        block = tl.num_programs(0) // NUM_PARTS - 1 - block
    part = tl.program_id(0) % NUM_PARTS
    sample = (tl.program_id(1) // num_heads).to(tl.int64)
    head = (tl.program_id(1) % num_heads).to(tl.int64)
    queries = block * QUERIES + tl.arange(0, QUERIES)
    q_real = queries < num_queries
    columns = part * VALUES + tl.arange(0, VALUES)
    v_real = columns < HEAD_DIM
    chunk = tl.arange(0, CHUNK)

    q_rows = q_ptr + sample * q_batch_stride + head * q_head_stride
    q_rows += queries.to(tl.int64) * q_token_stride
    k_head = k_ptr + sample * k_batch_stride + (head // heads_per_key) * k_head_stride
    v_head = v_ptr + sample * v_batch_stride + (head // heads_per_key) * v_head_stride

    end = num_keys
    if LENGTHS:
        end = tl.load(lengths_ptr + sample)
    if CAUSAL:
        end = tl.minimum(end, (block + 1) * QUERIES)
    if SLOPES:
        slope = tl.load(slopes_ptr + head)

    # Where the whole head is one chunk, the queries stay in registers.
    if NUM_CHUNKS == 1:
        q = tl.load(
            q_rows[:, None] + chunk[None, :],
            mask=q_real[:, None] & (chunk < HEAD_DIM)[None, :],
            other=0.0,
        )
        if UPCAST:
            q = q.to(tl.float32)
    highest = tl.full([QUERIES], float("-inf"), dtype=tl.float32)
    total = tl.zeros([QUERIES], dtype=tl.float32)
    out = tl.zeros([QUERIES, VALUES], dtype=tl.float32)
    for start in range(0, end, KEYS):
        keys = start + tl.arange(0, KEYS)
        k_real = keys < end
        k_rows = k_head + keys.to(tl.int64) * k_token_stride
        logits = tl.zeros([QUERIES, KEYS], dtype=tl.float32)
        for index in tl.static_range(NUM_CHUNKS):
            inner = index * CHUNK + chunk
            if NUM_CHUNKS > 1:
                q = tl.load(
                    q_rows[:, None] + inner[None, :],
                    mask=q_real[:, None] & (inner < HEAD_DIM)[None, :],
                    other=0.0,
                )
                if UPCAST:
                    q = q.to(tl.float32)
            k = tl.load(
                k_rows[None, :] + inner[:, None],
                mask=k_real[None, :] & (inner < HEAD_DIM)[:, None],
                other=0.0,
            )
            if UPCAST:
                k = k.to(tl.float32)
            logits = tl.dot(q, k, logits, input_precision="ieee")
        logits *= scale
        if SLOPES:
            distance = tl.maximum(queries[:, None] - keys[None, :], 0).to(tl.float32)
            logits -= slope * tl.sqrt(distance)
        seen = k_real[None, :]
        if CAUSAL:
            seen = seen & (keys[None, :] <= queries[:, None])
        logits = tl.where(seen, logits, float("-inf"))
        # Key 0 is seen by every query and lies in the first block, so `above` is finite from
        # there on and no difference of infinities arises.
        above = tl.maximum(highest, tl.max(logits, axis=1))
        weights = tl.exp(logits - above[:, None])
        rescale = tl.exp(highest - above)
        total = total * rescale + tl.sum(weights, axis=1)
        v = tl.load(
            v_head + keys.to(tl.int64)[:, None] * v_token_stride + columns[None, :],
            mask=k_real[:, None] & v_real[None, :],
            other=0.0,
        )
        weights = weights.to(v.dtype)
        if UPCAST:
            weights, v = weights.to(tl.float32), v.to(tl.float32)
        out = tl.dot(weights, v, out * rescale[:, None], input_precision="ieee")
        highest = above
    out = out / total[:, None]
    out_rows = (sample * num_queries + queries) * num_heads + head
    tl.store(
        out_ptr + out_rows[:, None] * HEAD_DIM + columns[None, :],
        out.to(out_ptr.dtype.element_ty),
        mask=q_real[:, None] & v_real[None, :],
    )


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """queries x keys per step; head channels per logits chunk and output columns per program."""

    queries: int
    keys: int
    chunk: int
    values: int
    num_warps: int
    num_stages: int


def default_config(head_dim: int, element_size: int) -> AttentionConfig:
    """Sized so that the compiled kernel fits 99 KiB of shared memory, the least among cards from
    Ampere on (8.6, 8.9, 12.0), without spilling registers.

    Found by compiling for 8.0, 8.6, 9.0 and 12.0 and reading shared memory and registers, not by
    timing. Heads up to 128: 64 x 32 keeps 156-211 registers (64 x 64 spills on 8.0 and 12.0). A
    512-wide head: 32 x 32 with all 512 output columns takes 98 KiB and 166 registers; 64 queries
    with 256 columns took 116 KiB on 8.6 and computed the logits twice. float32 has no tensor-core
    product at IEEE precision, so its tiles are small and single-staged.
    """
    width = max(power_of_2(head_dim), 16)
    single = element_size > 2
    if width <= 128:
        return AttentionConfig(
            queries=32 if single else 64,
            keys=32,
            chunk=width,
            values=width,
            num_warps=8 if single else 4,
            num_stages=1 if single else 3,
        )
    return AttentionConfig(
        queries=16 if single else 32,
        keys=16 if single else 32,
        chunk=64 if single else 128,
        values=256 if single else min(width, 512),
        num_warps=8,
        num_stages=1 if single else 2,
    )


def _candidates(head_dim: int, element_size: int) -> list[AttentionConfig]:
    if element_size > 2:
        return []
    width = max(power_of_2(head_dim), 16)
    if width <= 128:
        return [
            AttentionConfig(
                queries=queries,
                keys=keys,
                chunk=width,
                values=width,
                num_warps=warps,
                num_stages=stages,
            )
            for queries, warps in ((64, 4), (128, 8))
            for keys in (32, 64, 128)
            for stages in (2, 3)
        ]
    return [
        AttentionConfig(
            queries=queries, keys=keys, chunk=chunk, values=values, num_warps=8, num_stages=stages
        )
        for queries in (32, 64, 128)
        for keys in (32, 64)
        for chunk in (64, 128)
        for values in (256, 512)
        for stages in (1, 2, 3)
    ]


@lru_cache(maxsize=16)
def _lengths_on(device: torch.device, key_lengths: tuple[int, ...]) -> Tensor:
    # The same lengths come 48 times per step for a whole video: copied once, they cost no
    # synchronisation later.
    return torch.tensor(key_lengths, dtype=torch.int32, device=device)


def _dense_last(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def triton_attention(
    q_BSHD: Tensor,
    k_BTGD: Tensor,
    v_BTGD: Tensor,
    scale: float,
    causal: bool,
    key_lengths: tuple[int, ...] | None,
    slopes_H: Tensor | None,
) -> Tensor:
    """softmax(q k^T * scale + bias) v, streamed over the keys.

    q_BSHD: [B, S, H, D]; k_BTGD, v_BTGD: [B, T, G, D] in q's dtype, H a multiple of G; float32,
    bfloat16 or float16, any strides. causal: query i sees keys 0..i. key_lengths: leading valid
    keys per sample, or None. slopes_H: float32; -slopes[h] * sqrt(i - j) joins the logits.
    Returns a contiguous [B, S, H, D] in q's dtype. Logits and accumulation in float32 (IEEE, no
    TF32); the weights meet v in v's dtype.
    """
    batch, num_queries, num_heads, head_dim = q_BSHD.shape
    out = torch.empty(q_BSHD.shape, dtype=q_BSHD.dtype, device=q_BSHD.device)
    q, k, v = (_dense_last(x) for x in (q_BSHD, k_BTGD, v_BTGD))
    lengths = _lengths_on(q.device, key_lengths) if key_lengths is not None else q

    def run(config: AttentionConfig) -> None:
        parts = triton.cdiv(head_dim, config.values)
        blocks = triton.cdiv(num_queries, config.queries)
        _attention_kernel[(blocks * parts, batch * num_heads)](
            q,
            k,
            v,
            out,
            lengths,
            slopes_H if slopes_H is not None else q,
            num_queries,
            k.shape[1],
            num_heads,
            num_heads // k.shape[2],
            scale,
            *q.stride()[:3],
            *k.stride()[:3],
            *v.stride()[:3],
            CAUSAL=causal,
            LENGTHS=key_lengths is not None,
            SLOPES=slopes_H is not None,
            HEAD_DIM=head_dim,
            QUERIES=config.queries,
            KEYS=config.keys,
            CHUNK=config.chunk,
            VALUES=config.values,
            UPCAST=interpreted(),
            num_warps=config.num_warps,
            num_stages=config.num_stages,
        )

    element_size = q.element_size()
    bucket = (
        q.dtype,
        head_dim,
        causal,
        slopes_H is not None,
        power_of_2(num_queries),
        power_of_2(k.shape[1]),
    )
    default = default_config(head_dim, element_size)
    launch("attention", bucket, q, run, default, _candidates(head_dim, element_size))
    return out


def attention_twin(
    q_BSHD: Tensor,
    k_BTGD: Tensor,
    v_BTGD: Tensor,
    scale: float,
    causal: bool,
    key_lengths: tuple[int, ...] | None,
    slopes_H: Tensor | None,
) -> Tensor:
    """The same in plain torch, with the whole score matrix."""
    num_queries, num_keys = q_BSHD.shape[1], k_BTGD.shape[1]
    group = q_BSHD.shape[2] // k_BTGD.shape[2]
    q, k, v = (wide(x).transpose(1, 2) for x in (q_BSHD, k_BTGD, v_BTGD))
    logits = q @ k.repeat_interleave(group, dim=1).transpose(2, 3) * scale
    i = torch.arange(num_queries, device=q.device)[:, None]
    j = torch.arange(num_keys, device=q.device)[None, :]
    if slopes_H is not None:
        logits = logits - slopes_H[:, None, None] * (i - j).clamp_min(0).to(q.dtype).sqrt()
    if causal:
        logits = logits.masked_fill(j > i, float("-inf"))
    if key_lengths is not None:
        lengths = torch.tensor(key_lengths, device=q.device)
        logits = logits.masked_fill((j >= lengths[:, None])[:, None, None], float("-inf"))
    out = logits.softmax(dim=-1) @ v.repeat_interleave(group, dim=1)
    return out.transpose(1, 2).to(q_BSHD.dtype)
