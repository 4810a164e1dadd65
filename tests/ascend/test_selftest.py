"""The self-test finds operators that lie. Here they are plain functions on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from stepvideo_ascend.chunked import chunked_attention
from stepvideo_ascend.selftest import attention_verdict, forget_verdicts
from stepvideo_core.ops import AttentionSite

SELF = AttentionSite(name="dit.self", num_heads=48, num_kv_heads=48, head_dim=128)
CROSS = replace(SELF, name="dit.cross", key_lengths=True)
MID = replace(SELF, name="vae.mid", num_heads=1, num_kv_heads=1, head_dim=512, causal=True)
LLM = replace(SELF, name="step_llm.self", num_kv_heads=8, causal=True, sqrt_bias=True)
SITES = (SELF, CROSS, MID, LLM)
Arguments = tuple[float, bool, tuple[int, ...] | None, Tensor | None]


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    forget_verdicts()
    yield
    forget_verdicts()


@pytest.mark.parametrize("site", SITES, ids=lambda site: site.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_truth_passes(site: AttentionSite, dtype: torch.dtype) -> None:
    assert attention_verdict(chunked_attention, replace(site, dtype=dtype)) == []


@pytest.mark.parametrize("site", SITES, ids=lambda site: site.name)
def test_it_runs_while_a_model_is_built_on_the_meta_device(site: AttentionSite) -> None:
    with torch.device("meta"):
        assert attention_verdict(chunked_attention, site) == []
        assert attention_verdict(plain_average, SELF) != []


def blind_beyond_512(
    q_BSHD: Tensor,
    k_BTGD: Tensor,
    v_BTGD: Tensor,
    scale: float,
    causal: bool,
    key_lengths: tuple[int, ...] | None,
    slopes_H: Tensor | None,
) -> Tensor:
    """Honours the mask up to key 512 and sees every key behind."""
    arguments = (scale, causal, key_lengths, slopes_H)
    if k_BTGD.shape[1] <= 512:
        return chunked_attention(q_BSHD, k_BTGD, v_BTGD, *arguments)
    return _with_extra_keys(q_BSHD, k_BTGD, v_BTGD, arguments)


def _with_extra_keys(q: Tensor, k: Tensor, v: Tensor, arguments: Arguments) -> Tensor:
    scale, causal, lengths, _ = arguments
    logits = torch.einsum("bshd,bthd->bhst", q.float(), k.float()) * scale
    masked = torch.zeros_like(logits, dtype=torch.bool)
    if causal:
        masked |= torch.ones(logits.shape[-2:], dtype=torch.bool).triu(1)
    for sample, length in enumerate(lengths or ()):
        masked[sample, ..., length:] = True
    masked[..., 512:] = False
    weights = logits.masked_fill(masked, float("-inf")).softmax(-1)
    return torch.einsum("bhst,bthd->bshd", weights, v.float()).to(q.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("site", [CROSS, MID], ids=lambda site: site.name)
def test_a_mask_ignored_beyond_512_keys_is_found(site: AttentionSite, dtype: torch.dtype) -> None:
    (reason,) = attention_verdict(blind_beyond_512, replace(site, dtype=dtype))
    assert reason.startswith("self-test on cpu in ") and "with 600 keys: error" in reason
    # The same operator tells the truth where nothing is masked, and is not refused there.
    assert attention_verdict(blind_beyond_512, replace(SELF, dtype=dtype)) == []


def plain_average(
    q_BSHD: Tensor,
    k_BTGD: Tensor,
    v_BTGD: Tensor,
    scale: float,
    causal: bool,
    key_lengths: tuple[int, ...] | None,
    slopes_H: Tensor | None,
) -> Tensor:
    """Weighs all keys alike, as a scale of zero would."""
    return chunked_attention(0 * q_BSHD, k_BTGD, v_BTGD, scale, causal, key_lengths, None)


@pytest.mark.parametrize("site", [SELF, CROSS, MID], ids=lambda site: site.name)
def test_a_plain_average_is_found_and_called_that(site: AttentionSite) -> None:
    reasons = attention_verdict(plain_average, replace(site, dtype=torch.bfloat16))
    assert len(reasons) == 2
    assert all(reason.endswith("it gave the plain average of the values") for reason in reasons)


def no_mask(
    q_BSHD: Tensor,
    k_BTGD: Tensor,
    v_BTGD: Tensor,
    scale: float,
    causal: bool,
    key_lengths: tuple[int, ...] | None,
    slopes_H: Tensor | None,
) -> Tensor:
    return chunked_attention(q_BSHD, k_BTGD, v_BTGD, scale, False, None, None)


def test_unmasked_keys_are_found_and_called_that() -> None:
    reasons = attention_verdict(no_mask, replace(CROSS, dtype=torch.float16))
    assert len(reasons) == 2
    assert all(reason.endswith("it saw keys that were masked") for reason in reasons)


def forgotten_scale(
    q_BSHD: Tensor,
    k_BTGD: Tensor,
    v_BTGD: Tensor,
    scale: float,
    causal: bool,
    key_lengths: tuple[int, ...] | None,
    slopes_H: Tensor | None,
) -> Tensor:
    return chunked_attention(q_BSHD, k_BTGD, v_BTGD, 1.0, causal, key_lengths, slopes_H)


def not_a_number(
    q_BSHD: Tensor,
    k_BTGD: Tensor,
    v_BTGD: Tensor,
    scale: float,
    causal: bool,
    key_lengths: tuple[int, ...] | None,
    slopes_H: Tensor | None,
) -> Tensor:
    return q_BSHD * float("nan")


def failing(
    q_BSHD: Tensor,
    k_BTGD: Tensor,
    v_BTGD: Tensor,
    scale: float,
    causal: bool,
    key_lengths: tuple[int, ...] | None,
    slopes_H: Tensor | None,
) -> Tensor:
    raise RuntimeError("aclnn error 161002\nand a page of log")


def test_other_failures_become_sentences() -> None:
    assert len(attention_verdict(forgotten_scale, SELF)) == 2
    assert all("error inf" in reason for reason in attention_verdict(not_a_number, SELF))
    assert attention_verdict(failing, SELF)[0] == (
        "self-test on cpu in float32 with 40 keys: RuntimeError: aclnn error 161002"
    )


def test_each_call_is_tested_once_per_process() -> None:
    seen = []

    def counting(
        q_BSHD: Tensor,
        k_BTGD: Tensor,
        v_BTGD: Tensor,
        scale: float,
        causal: bool,
        key_lengths: tuple[int, ...] | None,
        slopes_H: Tensor | None,
    ) -> Tensor:
        seen.append(k_BTGD.shape[1])
        return chunked_attention(q_BSHD, k_BTGD, v_BTGD, scale, causal, key_lengths, slopes_H)

    for _ in range(2):
        assert attention_verdict(counting, SELF) == []
    assert seen == [40, 600]
    # Fewer heads of the same width are the same kernel; another dtype is not.
    assert attention_verdict(counting, replace(SELF, num_heads=8, num_kv_heads=8)) == []
    assert seen == [40, 600]
    assert attention_verdict(counting, replace(SELF, dtype=torch.bfloat16)) == []
    assert len(seen) == 4
