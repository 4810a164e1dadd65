"""Does an attention operator do on this device what it says?

Released operators have ignored a mask beyond key 512, and returned the plain average of the values,
without an error. So before an implementation is taken for a call site, the very call that the site
makes runs on the device at a small size and beyond 512 keys, and is compared with float32 on the
CPU. One that lies is refused with what it did. Each combination is tested once per process.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from stepvideo_ascend.capability import dtype_name
from stepvideo_core.ops import Attention, AttentionSite

# Errors relative to the truth's largest value; those seen in the wild were above a tenth.
TOLERANCES: dict[torch.dtype, float] = {
    torch.float32: 1e-3,
    torch.float16: 1e-2,
    torch.bfloat16: 3e-2,
}
KEY_COUNTS = (40, 600)
_CROSS_QUERIES = 24

_verdicts: dict[tuple[Attention, AttentionSite, tuple[int, ...]], tuple[str, ...]] = {}


def attention_verdict(
    attend: Attention, site: AttentionSite, key_counts: tuple[int, ...] = KEY_COUNTS
) -> list[str]:
    """Why `attend` must not serve `site` on its device; empty if it computed what it should."""
    # The number of heads changes nothing but the time, the ratio to key heads does.
    group = site.num_heads // site.num_kv_heads
    small = AttentionSite(
        name="selftest",
        num_heads=group * min(site.num_kv_heads, 2),
        num_kv_heads=min(site.num_kv_heads, 2),
        head_dim=site.head_dim,
        causal=site.causal,
        key_lengths=site.key_lengths,
        sqrt_bias=site.sqrt_bias,
        device=site.device,
        dtype=site.dtype,
    )
    call = (attend, small, key_counts)
    if call not in _verdicts:
        _verdicts[call] = tuple(_verdict(*call))
    return list(_verdicts[call])


def _verdict(attend: Attention, site: AttentionSite, key_counts: tuple[int, ...]) -> Iterator[str]:
    for keys in key_counts:
        where = f"self-test on {site.device} in {dtype_name(site.dtype)} with {keys} keys"
        try:
            # Call sites bind while their models are built on the meta device.
            with torch.device("cpu"), torch.no_grad():
                problem = _examine(attend, site, keys)
        except RuntimeError as error:  # what torch makes of every error of the device
            first_line = str(error).strip().split("\n")[0]
            problem = f"{type(error).__name__}: {first_line}"
        if problem:
            yield f"{where}: {problem}"


def forget_verdicts() -> None:
    """Test everything anew, after an operator has been replaced in the running process."""
    _verdicts.clear()


def _examine(attend: Attention, site: AttentionSite, keys: int) -> str | None:
    # Some libraries choose the kernel by the number of queries, which here is that of the keys.
    queries = _CROSS_QUERIES if site.key_lengths else keys
    # The second sample is what a batch with guidance has: fewer keys than the first.
    lengths = (keys, keys - keys // 8) if site.key_lengths else None
    batch = 2 if site.key_lengths else 1
    generator = torch.Generator().manual_seed(keys)

    def made(count: int, heads: int) -> Tensor:
        return torch.randn((batch, count, heads, site.head_dim), generator=generator)

    # Logits of a few units, so that an average is far from the truth; values that grow with the
    # position, so that a key which should not be seen moves the result.
    q = (2 * made(queries, site.num_heads)).to(site.dtype)
    k = made(keys, site.num_kv_heads).to(site.dtype)
    ramp = torch.linspace(0, 4, keys)[None, :, None, None]
    v = (made(keys, site.num_kv_heads) + ramp).to(site.dtype)
    slopes = torch.linspace(0.1, 0.5, site.num_heads) if site.sqrt_bias else None
    scale = site.head_dim**-0.5
    device = site.device
    result = attend(
        q.to(device),
        k.to(device),
        v.to(device),
        scale,
        site.causal,
        lengths,
        None if slopes is None else slopes.to(device),
    )
    ours = result.cpu().float()
    q, k, v = q.float(), k.float(), v.float()
    truth = _attention(q, k, v, scale, site.causal, lengths, slopes)
    tolerance = TOLERANCES[site.dtype]
    error = _distance(ours, truth)
    if error <= tolerance:
        return None
    what = ""
    unmasked = _attention(q, k, v, scale, False, None, slopes)
    average = _attention(0 * q, k, v, scale, site.causal, lengths, None)
    if _distance(ours, average) <= tolerance or _distance(ours, v.mean(1, True)) <= tolerance:
        what = "; it gave the plain average of the values"
    elif (site.causal or site.key_lengths) and _distance(ours, unmasked) <= tolerance:
        what = "; it saw keys that were masked"
    return f"error {error:.2g} of the largest value, where {tolerance:.0e} is tolerated{what}"


def _distance(ours: Tensor, truth: Tensor) -> float:
    """The largest difference over the truth's largest value; infinite where ours is not finite."""
    group = ours.shape[2] // truth.shape[2]
    difference = (ours - truth.repeat_interleave(group, dim=2)).abs().max().item()
    return math.inf if math.isnan(difference) else difference / truth.abs().max().item()


def _attention(
    q_BSHD: Tensor,
    k_BTGD: Tensor,
    v_BTGD: Tensor,
    scale: float,
    causal: bool,
    lengths: tuple[int, ...] | None,
    slopes_H: Tensor | None,
) -> Tensor:
    """The operator's definition in float32, on the CPU."""
    group = q_BSHD.shape[2] // k_BTGD.shape[2]
    k, v = (x.repeat_interleave(group, dim=2) for x in (k_BTGD, v_BTGD))
    logits_BHST = torch.einsum("bshd,bthd->bhst", q_BSHD, k) * scale
    distance_ST = torch.arange(q_BSHD.shape[1])[:, None] - torch.arange(k.shape[1])[None]
    if slopes_H is not None:
        logits_BHST -= slopes_H[:, None, None] * distance_ST.clamp_min(0).float().sqrt()
    if causal:
        logits_BHST = logits_BHST.masked_fill(distance_ST < 0, -math.inf)
    for sample, length in enumerate(lengths or ()):
        logits_BHST[sample, :, :, length:] = -math.inf
    return torch.einsum("bhst,bthd->bshd", logits_BHST.softmax(dim=-1), v)
