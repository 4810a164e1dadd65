"""Native operators on the virtual device: what torch computes, and what hardware refuses."""

from __future__ import annotations

import operator
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses import FakeTensorMode

from stepvideo_virtual_npu import NotModelled, PolicyViolation, recorded_calls

DEVICE = torch.device("npu:0")

_VIEWS: list[Callable[[Tensor], Tensor]] = [
    lambda x: x,
    lambda x: x.transpose(0, 1),
    lambda x: x[..., 1:],
    lambda x: x[::2],
    lambda x: x.unsqueeze(1).expand(-1, 3, -1, -1),
    lambda x: x.flip(-1),
]
_COMPUTED: list[Callable[[Tensor], Tensor]] = [
    lambda x: x * 2 + 1,
    lambda x: x.softmax(-1),
    lambda x: x.float().cumsum(-1),
    lambda x: x @ x.transpose(-1, -2),
    lambda x: torch.cat([x, x.square()], dim=-1),
    lambda x: x.mean(dim=-1, keepdim=True).expand_as(x),
    lambda x: x.contiguous().view(-1)[1:],
    lambda x: x.masked_fill(x > 0, -1.0),
    lambda x: x.reshape(-1).topk(2).values,
    lambda x: F.layer_norm(x, x.shape[-1:]),
    lambda x: x.amax(dim=0).where(x.amin(dim=0) > -1, 0.5),
]


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(2, 4), st.integers(2, 5), st.integers(2, 6)),
    view=st.sampled_from(_VIEWS),
    compute=st.sampled_from(_COMPUTED),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    seed=st.integers(0, 99),
)
def test_results_are_the_cpus(
    shape: tuple[int, ...],
    view: Callable[[Tensor], Tensor],
    compute: Callable[[Tensor], Tensor],
    dtype: torch.dtype,
    seed: int,
) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    there = x.to(DEVICE)
    result = compute(view(there))
    assert result.device == DEVICE
    expected = compute(view(x))
    assert result.dtype == expected.dtype
    torch.testing.assert_close(result.cpu(), expected)
    assert torch.equal(there.cpu(), x), "the input was changed"


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 4), st.integers(1, 3), st.sampled_from([operator.iadd, operator.imul]))
def test_writing_through_views(
    start: int, step: int, change: Callable[[Tensor, float], Tensor]
) -> None:
    x = torch.arange(12.0).view(3, 4)
    there = x.to(DEVICE)
    for tensor in (x, there):
        change(tensor.t()[start::step], 3.0)
        tensor.view(-1)[1] = 7.0
    assert torch.equal(there.cpu(), x)


def test_out_and_aliases() -> None:
    x = torch.arange(6.0, device=DEVICE)
    out = torch.empty(6, device=DEVICE)
    assert torch.add(x, 1, out=out) is out
    assert out.cpu().tolist() == [1, 2, 3, 4, 5, 6]
    empty = torch.empty(0, device=DEVICE)
    assert torch.add(x, 1, out=empty) is empty, "an out of another size is resized"
    assert empty.cpu().tolist() == [1, 2, 3, 4, 5, 6]
    assert x.add_(1) is x
    view = x.view(2, 3)
    assert view.data_ptr() == x.data_ptr()
    assert x.contiguous() is x


def test_gradients() -> None:
    torch.manual_seed(0)
    results = []
    weight, x = torch.randn(5, 4), torch.randn(3, 4)
    for device in ("cpu", DEVICE):
        leaf = weight.to(device).detach().requires_grad_()
        F.silu(F.linear(x.to(device), leaf)).square().sum().backward()
        assert leaf.grad is not None and leaf.grad.device.type == torch.device(device).type
        results.append(leaf.grad.cpu())
    torch.testing.assert_close(*results)


def test_what_has_no_npu_kernel_fails() -> None:
    """Instead of quietly going to the CPU and back."""
    a = torch.ones(32, 32, dtype=torch.int8, device=DEVICE)
    with pytest.raises((RuntimeError, NotImplementedError), match="_int_mm"):
        torch._int_mm(a, a)


def test_tensors_of_two_devices_do_not_mix() -> None:
    with pytest.raises(PolicyViolation, match="on the same device"):
        torch.ones(3, device=DEVICE) + torch.ones(3)
    with pytest.raises(PolicyViolation, match="on the same device"):
        F.layer_norm(torch.ones(3, device=DEVICE), (3,), torch.ones(3))
    scaled = torch.ones(3, device=DEVICE) * torch.tensor(2.0)
    assert scaled.cpu().tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    "compute",
    [
        lambda x: x @ x,
        lambda x: F.conv1d(x[None], x[None]),
        lambda x: x.softmax(-1),
        lambda x: F.layer_norm(x, (4,)),
        lambda x: F.group_norm(x, 2),
        lambda x: F.silu(x),
    ],
    ids=["matmul", "convolution", "softmax", "layer_norm", "group_norm", "silu"],
)
def test_there_is_no_64_bit_arithmetic(compute: Callable[[Tensor], Tensor]) -> None:
    x = torch.ones(4, 4, dtype=torch.float64, device=DEVICE)
    with pytest.raises(PolicyViolation, match="64-bit"):
        compute(x)
    assert (x.float() @ x.float()).double().cpu().eq(4).all(), "moving 64 bits is fine"


@pytest.mark.parametrize("mode", ["replicate", "reflect"])
def test_bfloat16_is_padded_with_constants_only(mode: str) -> None:
    x = torch.ones(1, 2, 4, 4, dtype=torch.bfloat16, device=DEVICE)
    with pytest.raises(PolicyViolation, match="only constant padding"):
        F.pad(x, (1, 1, 1, 1), mode=mode)
    assert F.pad(x, (1, 1, 1, 1)).shape == (1, 2, 6, 6)
    assert F.pad(x.half(), (1, 1, 1, 1), mode=mode).shape == (1, 2, 6, 6)


def test_native_gelu_is_tanh_whatever_it_is_asked_for(plain_gelu: None) -> None:
    x = torch.linspace(-4, 4, 200)
    for form in ("none", "tanh"):
        result = F.gelu(x.to(DEVICE), approximate=form).cpu()
        torch.testing.assert_close(result, F.gelu(x, approximate="tanh"))


def test_native_gelu_obeys_with_the_compatible_implementation(compatible_gelu: None) -> None:
    x = torch.linspace(-4, 4, 200)
    result = F.gelu(x.to(DEVICE)).cpu()
    torch.testing.assert_close(result, F.gelu(x))
    assert not torch.equal(result, F.gelu(x, approximate="tanh"))


def _attention_calls(mask: Tensor | None, width: int = 64, **options: bool) -> list[str]:
    q = torch.randn(1, 4, 24, width).half()
    on_device = None if mask is None else mask.to(DEVICE)
    with recorded_calls() as calls:
        result = F.scaled_dot_product_attention(
            q.to(DEVICE), q.to(DEVICE), q.to(DEVICE), attn_mask=on_device, **options
        )
    expected = F.scaled_dot_product_attention(q, q, q, attn_mask=mask, **options)
    torch.testing.assert_close(result.cpu(), expected, atol=4e-3, rtol=4e-3)
    return [call.op for call in calls if call.op.startswith("npu::")]


def test_torch_npu_decides_where_torchs_attention_goes() -> None:
    """Its own C++ runs: float masks never reach the fused kernel, wide heads neither."""
    fused = ["npu::npu_fusion_attention_v3"]
    assert _attention_calls(None) == fused
    assert _attention_calls(None, is_causal=True) == fused
    assert _attention_calls(torch.rand(24, 24) < 0.7) == fused
    assert _attention_calls(torch.zeros(24, 24).half()) == []
    assert _attention_calls(None, width=520) == []


def test_fake_tensors_check_placement_and_contracts() -> None:
    with FakeTensorMode():
        q = torch.empty(1, 75_888, 48, 128, dtype=torch.bfloat16, device=DEVICE)
        out = torch.ops.npu.npu_fusion_attention(q, q, q, 48, "BSND", scale=0.1)[0]
        assert out.shape == q.shape and out.device == DEVICE
        with pytest.raises(RuntimeError, match="head_num is 47"):
            torch.ops.npu.npu_fusion_attention(q, q, q, 47, "BSND", scale=0.1)
        with pytest.raises(RuntimeError, match=r"different devices|same device"):
            q + torch.empty(1, 75_888, 48, 128)


def test_operators_without_a_contract_are_refused() -> None:
    x = torch.ones(4, 4, device=DEVICE)
    with pytest.raises(NotModelled, match="npu_linear is not modelled"):
        torch.ops.npu.npu_linear(x, x)
    with pytest.raises(NotModelled, match="npu_linear is not modelled"):
        torch.ops.npu.npu_linear(x.to("meta"), x.to("meta"))


def test_records_show_what_was_passed() -> None:
    x = torch.ones(2, 6, dtype=torch.float16, device=DEVICE)
    with recorded_calls() as calls:
        torch.ops.npu.npu_gelu(x, approximate="tanh")
    (call,) = [call for call in calls if call.op == "npu::npu_gelu"]
    assert call.arguments["approximate"] == "tanh"
    assert call.arguments["input"].shape == (2, 6)
    assert call.arguments["input"].dtype == torch.float16
    assert not call.meta
