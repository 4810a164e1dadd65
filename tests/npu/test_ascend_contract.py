"""Every call of the backend at the sizes of the 30B model: shapes only, but every argument checked.

The models are bound for npu:0 without a fallback and run on meta tensors, where each `npu::` call
meets the vendor's schema, our statement of its documented limits and the vendor's shape function.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from stepvideo_ascend.convolution import largest_piece
from stepvideo_core.config import VAE_V2, StepLLMConfig, TransformerConfig
from stepvideo_core.dispatch import DispatchPlan, DispatchPolicy
from stepvideo_core.models.step_llm import StepLLM
from stepvideo_core.models.transformer import StepVideoTransformer
from stepvideo_core.models.vae import VideoVAE
from stepvideo_core.plugins import load_registry
from stepvideo_virtual_npu import recorded_calls

BF16 = torch.bfloat16
ALL_TOKENS = 2147483647
FRAMES, HEIGHT, WIDTH = 36, 34, 62  # latents of 544 x 992 x 204
TOKENS = FRAMES * HEIGHT * WIDTH
TEXT = 389


def meta(*shape: int, dtype: torch.dtype = BF16) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def build(make: Any) -> Any:
    """A model bound for the npu, on the meta device, in bfloat16."""
    policy = DispatchPolicy.parse(backend="npu", allow_fallback=False)
    plan = DispatchPlan(load_registry(), policy, device=torch.device("npu", 0), dtype=BF16)
    with torch.device("meta"):
        model: nn.Module = make(plan)
    plan.freeze()
    chosen = {choice.impl for choice in plan.choices}
    assert all(impl.startswith("npu:") or impl == "composed" for impl in chosen)
    return model.to(BF16).eval().requires_grad_(False)


def by_operator(calls: list[Any]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for call in calls:
        if call.op.startswith("npu::"):
            assert call.meta
            found.setdefault(call.op.removeprefix("npu::"), []).append(call.arguments)
    return found


@pytest.mark.parametrize("image", [False, True], ids=["t2v", "ti2v"])
@pytest.mark.parametrize("lengths", [None, (397,)], ids=["all keys", "key lengths"])
def test_a_block_of_the_transformer(image: bool, lengths: tuple[int, ...] | None) -> None:
    config = replace(TransformerConfig(), num_layers=1, use_additional_conditions=image)
    channels = config.in_channels * (2 if image else 1)
    model = build(lambda plan: StepVideoTransformer(config, plan))
    llm_width, clip_width = config.caption_channels
    latents = meta(1, FRAMES, channels, HEIGHT, WIDTH)
    with recorded_calls() as calls:
        text = model.encode_text(meta(1, TEXT, llm_width), meta(1, 8, clip_width), lengths)
        score = 5.0 if image else None
        modulation = model.modulation(meta(1), score) if image else model.modulation(meta(1))
        out = model(latents, modulation, text, model.rope(latents, BF16))
    assert out.shape == (1, FRAMES, config.out_channels, HEIGHT, WIDTH)
    npu = by_operator(calls)
    assert set(npu) == {"npu_fusion_attention", "npu_rms_norm", "npu_rotary_mul", "npu_gelu"}

    own, cross = npu["npu_fusion_attention"]
    for call in (own, cross):
        assert call["query"].shape == (1, TOKENS, 48, 128)
        assert (call["head_num"], call["input_layout"]) == (48, "BSND")
        assert call["scale"] == pytest.approx(128**-0.5)
        assert call["keep_prob"] == 1.0 and call["atten_mask"] is None
        assert call["pre_tockens"] == call["next_tockens"] == ALL_TOKENS
        assert call["actual_seq_kvlen"] is None and call["sparse_mode"] == 0
    assert own["key"].shape == (1, TOKENS, 48, 128)
    assert cross["key"].shape == cross["value"].shape == (1, TEXT + 8, 48, 128)

    rotations = [(call["input"].shape[-1], call["rotary_mode"]) for call in npu["npu_rotary_mul"]]
    assert rotations == [(64, "half"), (32, "half"), (32, "half")] * 2
    for call in npu["npu_rotary_mul"]:
        width = call["input"].shape[-1]
        assert call["input"].shape == (1, TOKENS, 48, width)
        assert call["r1"].shape == call["r2"].shape == (1, TOKENS, 1, width)
        assert call["input"].dtype == call["r1"].dtype == torch.float32

    assert {call["epsilon"] for call in npu["npu_rms_norm"]} == {1e-6}
    assert {call["gamma"].shape for call in npu["npu_rms_norm"]} == {(128,)}
    assert {call["approximate"] for call in npu["npu_gelu"]} == {"tanh"}
    assert sum(call["input"].shape[1] for call in npu["npu_gelu"]) == TOKENS


class Convolutions(TorchDispatchMode):
    """Sizes of every convolution's input and output."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[int] = []
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.convolution.default:
            self.elements += [args[0].numel(), out.numel()]
            self.dtypes.add(args[0].dtype)
        return out


@pytest.fixture
def convolutions() -> Iterator[Convolutions]:
    with Convolutions() as mode:
        yield mode


def test_a_chunk_of_the_decoder(convolutions: Convolutions) -> None:
    model = build(lambda plan: VideoVAE(VAE_V2, plan))
    with recorded_calls() as calls:
        frames = model.decode(meta(1, 3, 64, HEIGHT, WIDTH))
    assert frames.shape[-2:] == (544, 992)
    npu = by_operator(calls)
    assert set(npu) == {"npu_fusion_attention", "npu_group_norm_silu"}
    for call in npu["npu_fusion_attention"]:
        tokens = call["query"].shape[1]
        assert call["query"].shape == call["key"].shape == (1, tokens, 1, 512)
        assert tokens > 2048
        assert (call["sparse_mode"], call["atten_mask"].shape) == (2, (2048, 2048))
        assert call["atten_mask"].dtype == torch.bool
        assert call["scale"] == pytest.approx(512**-0.5)
    for call in npu["npu_group_norm_silu"]:
        assert (call["group"], call["eps"]) == (32, 1e-5)
        assert call["input"].shape[2] == 1, "one frame at a time"
    assert convolutions.dtypes == {BF16}
    # The widest layer has 2.76e9 elements, so this fails unless it is sliced.
    assert max(convolutions.elements) <= largest_piece(BF16)
    assert max(convolutions.elements) > largest_piece(BF16) // 2


def test_the_encoder(convolutions: Convolutions) -> None:
    model = build(lambda plan: VideoVAE(VAE_V2, plan))
    with recorded_calls() as calls:
        model.encode(meta(1, 17, 3, 544, 992))
    assert set(by_operator(calls)) == {"npu_fusion_attention", "npu_group_norm_silu"}
    assert max(convolutions.elements) <= largest_piece(BF16)


def test_step_llm_meets_no_fused_attention() -> None:
    config = replace(StepLLMConfig(), num_layers=1)
    model = build(lambda plan: StepLLM(config, plan))
    with recorded_calls() as calls:
        model(meta(1, 320, dtype=torch.int64))
    assert set(by_operator(calls)) == {"npu_rms_norm"}
