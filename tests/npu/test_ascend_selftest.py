"""Operators that lie are planted in place of the vendor's, and the backend refuses them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Any

import pytest
import torch
from torch import Tensor

from stepvideo_ascend.selftest import forget_verdicts
from stepvideo_core.config import VAE_V2, TransformerConfig
from stepvideo_core.dispatch import DispatchPlan, DispatchPolicy
from stepvideo_core.models.transformer import StepVideoTransformer
from stepvideo_core.models.vae import VideoVAE
from stepvideo_core.plugins import ENTRY_POINT_GROUP
from stepvideo_core.plugins.manager import build_registry
from stepvideo_virtual_npu.arguments import bind

SCHEMA = torch.ops.npu.npu_fusion_attention.default._schema


@contextlib.contextmanager
def planted(operator: str, kernel: Callable[..., Any]) -> Iterator[None]:
    library = torch.library.Library("npu", "IMPL")
    library.impl(operator, kernel, "PrivateUse1", allow_override=True)
    forget_verdicts()
    try:
        yield
    finally:
        library._destroy()
        forget_verdicts()


def _chosen(dtype: torch.dtype = torch.bfloat16) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Attention site -> what the plan took, and why nothing before it."""
    registry = build_registry(entry_points(group=ENTRY_POINT_GROUP))
    plan = DispatchPlan(
        registry, DispatchPolicy(backend="npu"), device=torch.device("npu", 0), dtype=dtype
    )
    with torch.device("meta"):
        StepVideoTransformer(TransformerConfig(num_layers=1), plan)
        VideoVAE(VAE_V2, plan)
    return {
        choice.site.name: (choice.impl, choice.reasons)
        for choice in plan.choices
        if choice.op == "attention"
    }


def _results(out: Tensor) -> tuple[Any, ...]:
    rows = torch.zeros(*out.shape[:1], out.shape[2], out.shape[1], 8, device=out.device)
    return out, rows, rows.clone(), out.new_empty(0), 0, 0, 0


def _blind_beyond_512(*args: Any, **options: Any) -> tuple[Any, ...]:
    """Computes what it should, but lets every query see the keys from 512 on."""
    call = bind(SCHEMA, args, options)
    assert call.input_layout == "BSND"
    q, k, v = (x.cpu().float().transpose(1, 2) for x in (call.query, call.key, call.value))
    logits = q @ k.transpose(-1, -2) * call.scale
    if call.atten_mask is not None:
        hidden = torch.ones(logits.shape[-2:], dtype=torch.bool).triu(1)
        hidden[:, 512:] = False
        logits = logits.masked_fill(hidden, float("-inf"))
    out = (logits.softmax(-1) @ v).transpose(1, 2)
    return _results(out.to(call.query.dtype).to(call.query.device))


def _average(*args: Any, **options: Any) -> tuple[Any, ...]:
    call = bind(SCHEMA, args, options)
    return _results(call.value.mean(dim=1, keepdim=True).expand_as(call.query).contiguous())


def test_the_vendor_s_operators_as_documented_are_taken() -> None:
    chosen = _chosen()
    assert {impl for impl, _ in chosen.values()} == {"npu:fusion"}
    assert all(reasons == () for _, reasons in chosen.values())


def test_a_mask_ignored_beyond_key_512_costs_the_masked_sites() -> None:
    with planted("npu_fusion_attention", _blind_beyond_512):
        chosen = _chosen()
    impl, reasons = chosen["vae.mid"]
    assert impl == "npu:fused_infer"
    (reason,) = reasons
    assert reason.startswith("npu:fusion: self-test on npu:0 in bfloat16 with 600 keys: error ")
    assert chosen["dit.self"] == chosen["dit.cross"] == ("npu:fusion", ())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_plain_average_costs_every_site(dtype: torch.dtype) -> None:
    with planted("npu_fusion_attention", _average):
        chosen = _chosen(dtype)
    assert len(chosen) == 3
    for impl, reasons in chosen.values():
        assert impl == ("npu:fused_infer" if dtype == torch.bfloat16 else "npu:chunked")
        told = [reason for reason in reasons if reason.startswith("npu:fusion: self-test")]
        assert len(told) == 2, "at 40 and at 600 keys"
        assert all(reason.endswith("plain average of the values") for reason in told)
    assert _chosen()["dit.self"] == ("npu:fusion", ()), "the liar was taken out again"


def test_an_operator_that_raises_is_refused_with_its_first_line() -> None:
    def failing(*args: Any, **options: Any) -> Any:
        raise RuntimeError("aclnnFlashAttentionScore failed: 161002\nlines of log")

    with planted("npu_fusion_attention", failing):
        _, reasons = _chosen()["dit.self"]
    assert reasons[0] == (
        "npu:fusion: self-test on npu:0 in bfloat16 with 40 keys: RuntimeError: "
        "aclnnFlashAttentionScore failed: 161002"
    )
