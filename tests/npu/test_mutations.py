"""Wrong calls, made deliberately: the virtual NPU must catch each, by an error or by numbers.

The Ascend backend's own call sites are run with one argument changed on its way to the operator;
where the backend makes no such call, a call site is written here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stepvideo_core.ops import ADALN_MODULATE, ATTENTION, GELU_TANH, OpImpl
from stepvideo_core.plugins import load_registry
from stepvideo_core.testing.cases import CASES
from stepvideo_core.testing.parity import check, eager_of
from stepvideo_virtual_npu import ContractViolation, recorded_calls

DEVICE = torch.device("npu:0")
Arguments = dict[str, Any]


def verdicts(impl: OpImpl[Any], dtype: torch.dtype, *sites: str) -> set[str]:
    """`passed`, `failed` (by numbers) or `refused` (by an error), over the cases at the sites."""
    eager = eager_of(load_registry(), impl.op.name)
    found = set()
    for case in CASES:
        if case.op is impl.op and case.site.name in sites:
            try:
                result = check(impl, "npu:mutant", case, dtype, DEVICE, eager)
                found.add(result.status)
            except ContractViolation:
                found.add("refused")
    assert found, sites
    return found


def backend_impl(op: str, name: str) -> OpImpl[Any]:
    """An implementation of the Ascend backend, ready to be asked nothing but to compute: its own
    self-test, which refuses liars as well, has judged it before it is mutated."""
    registry = load_registry()
    assert registry.why_not("npu") == []
    (impl,) = (
        impl for impl in registry.implementations("npu") if (impl.op.name, impl.name) == (op, name)
    )
    return replace(impl, why_not=lambda site: [])


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """`change` alters the keyword and positional arguments of `operator`, which `impl` calls."""

    name: str
    op: str
    impl: str
    operator: str
    change: Callable[[list[Any], Arguments], None]
    sites: tuple[str, ...]
    expected: set[str]
    dtype: torch.dtype = torch.float16


def _layout(args: list[Any], kwargs: Arguments) -> None:
    args[4] = "BNSD"


def _no_scale(args: list[Any], kwargs: Arguments) -> None:
    del kwargs["scale"]


def _not_causal(args: list[Any], kwargs: Arguments) -> None:
    kwargs["sparse_mode"] = 0


def _inverted(args: list[Any], kwargs: Arguments) -> None:
    kwargs["atten_mask"] = ~kwargs["atten_mask"]


def _no_triangle(args: list[Any], kwargs: Arguments) -> None:
    kwargs["atten_mask"] = None


def _interleaved(args: list[Any], kwargs: Arguments) -> None:
    kwargs["rotary_mode"] = "interleave"


def _erf(args: list[Any], kwargs: Arguments) -> None:
    kwargs["approximate"] = "none"


def _heads_of_keys(args: list[Any], kwargs: Arguments) -> None:
    kwargs["num_heads"] = 1


def _all_keys(args: list[Any], kwargs: Arguments) -> None:
    kwargs["actual_seq_lengths_kv"] = None


def _narrow(args: list[Any], kwargs: Arguments) -> None:
    args[1], args[2] = (table[..., ::2] for table in args[1:3])


def _epsilon(args: list[Any], kwargs: Arguments) -> None:
    kwargs["epsilon"] = 1e-2


_FUSION: dict[str, Any] = {
    "op": "attention",
    "impl": "fusion",
    "operator": "npu_fusion_attention",
    "sites": ("dit.self",),
}
_INFER = _FUSION | {"impl": "fused_infer", "operator": "npu_fused_infer_attention_score"}

MUTATIONS = (
    Mutation(name="layout string", change=_layout, expected={"refused"}, **_FUSION),
    Mutation(name="scale left at 1.0", change=_no_scale, expected={"failed"}, **_FUSION),
    Mutation(name="scale left at 1.0 in FIA", change=_no_scale, expected={"failed"}, **_INFER),
    Mutation(name="head count left at 1", change=_heads_of_keys, expected={"refused"}, **_INFER),
    Mutation(
        name="triangle of the opposite polarity",
        change=_inverted,
        expected={"refused"},
        **_FUSION | {"sites": ("vae.mid",)},
    ),
    Mutation(
        name="triangle without its sparse mode",
        change=_not_causal,
        expected={"refused"},
        **_FUSION | {"sites": ("vae.mid",)},
    ),
    Mutation(
        name="sparse mode without its triangle",
        change=_no_triangle,
        expected={"refused"},
        **_FUSION | {"sites": ("vae.mid",)},
    ),
    Mutation(
        name="key lengths forgotten",
        change=_all_keys,
        expected={"failed"},
        **_INFER | {"sites": ("dit.cross",)},
    ),
    Mutation(
        name="interleaved instead of half",
        op="rope_3d",
        impl="rotary",
        operator="npu_rotary_mul",
        change=_interleaved,
        sites=("dit.self",),
        expected={"failed"},
    ),
    Mutation(
        name="tables half as wide",
        op="rope_3d",
        impl="rotary",
        operator="npu_rotary_mul",
        change=_narrow,
        sites=("dit.self",),
        expected={"refused"},
    ),
    Mutation(
        name="erf instead of tanh",
        op="gelu_tanh",
        impl="fused",
        operator="npu_gelu",
        change=_erf,
        sites=("dit.ffn",),
        expected={"failed"},
        dtype=torch.float32,
    ),
    Mutation(
        name="another epsilon",
        op="rms_norm",
        impl="fused",
        operator="npu_rms_norm",
        change=_epsilon,
        sites=("dit.cross", "step_llm.norm"),
        expected={"failed"},
    ),
)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutated_call_of_the_backend_is_caught(
    mutation: Mutation, monkeypatch: pytest.MonkeyPatch
) -> None:
    impl = backend_impl(mutation.op, mutation.impl)
    with recorded_calls() as calls:
        assert verdicts(impl, mutation.dtype, *mutation.sites) == {"passed"}
    assert any(call.op == f"npu::{mutation.operator}" for call in calls), "not its call site"
    operator = getattr(torch.ops.npu, mutation.operator)

    def mutant(*args: Any, **kwargs: Any) -> Any:
        changed, options = list(args), dict(kwargs)
        mutation.change(changed, options)
        return operator(*changed, **options)

    monkeypatch.setattr(torch.ops.npu, mutation.operator, mutant)
    found = verdicts(impl, mutation.dtype, *mutation.sites)
    # Cases with one token, or whose keys are all valid, can be right all the same.
    assert found - {"passed"} == mutation.expected


def _masked_attention(keep_polarity: bool) -> OpImpl[Any]:
    """Cross-attention by a key padding mask, as many projects call it."""

    def attend(
        q_BSHD: Tensor,
        k_BTGD: Tensor,
        v_BTGD: Tensor,
        scale: float,
        causal: bool,
        key_lengths: tuple[int, ...] | None,
        slopes_H: Tensor | None,
    ) -> Tensor:
        batch, queries, heads, _ = q_BSHD.shape
        keys = k_BTGD.shape[1]
        lengths = torch.tensor(key_lengths or (keys,) * batch)
        valid = (torch.arange(keys) < lengths[:, None]).to(q_BSHD.device)
        mask = valid if keep_polarity else ~valid
        expanded = mask[:, None, None].expand(batch, 1, queries, keys).contiguous()
        return torch.ops.npu.npu_fusion_attention(
            q_BSHD, k_BTGD, v_BTGD, heads, "BSND", atten_mask=expanded, scale=scale
        )[0]

    return OpImpl(op=ATTENTION, name="masked", fn=attend)


def test_swapped_mask_polarity() -> None:
    """A sample whose keys are all valid is masked completely, which the contract sees; of the
    others the numbers tell."""
    assert verdicts(_masked_attention(False), torch.float32, "dit.cross") == {"passed"}
    wrong = verdicts(_masked_attention(True), torch.float32, "dit.cross")
    assert wrong == {"refused", "failed"}


@pytest.mark.parametrize("tokens", [3, 48])
def test_a_wrong_layout_string_on_a_square(tokens: int) -> None:
    """With as many tokens as heads no shape tells BSND from BNSD: only the numbers do."""
    heads = 3
    q = torch.randn(1, tokens, heads, 32, generator=torch.Generator().manual_seed(0))
    expected = F.scaled_dot_product_attention(*(q.transpose(1, 2),) * 3).transpose(1, 2)

    def attend(layout: str) -> Tensor:
        there = q.to(DEVICE)
        arguments = (there, there, there, heads, layout)
        return torch.ops.npu.npu_fusion_attention(*arguments, scale=32**-0.5)[0].cpu()

    torch.testing.assert_close(attend("BSND"), expected)
    if tokens == heads:
        assert (attend("BNSD") - expected).abs().max() > 0.1
    else:
        with pytest.raises(ContractViolation, match="has 48 heads in layout BNSD"):
            attend("BNSD")


@pytest.mark.parametrize("device", ["meta", "cpu", "npu"])
def test_cumulative_lengths_with_a_leading_zero(device: str) -> None:
    q = torch.randn(9, 2, 32).to(device)

    def attend(ends: list[int]) -> Tensor:
        return torch.ops.npu.npu_fusion_attention(
            *(q, q, q, 2, "TND"), scale=0.2, actual_seq_qlen=ends, actual_seq_kvlen=ends
        )[0]

    assert attend([4, 9]).shape == q.shape
    with pytest.raises(ContractViolation, match="without a leading 0"):
        attend([0, 4, 9])


def test_native_gelu_where_tanh_is_meant(compatible_gelu: None) -> None:
    """With torch_npu's compatible implementation F.gelu is what it says: erf, unless told."""
    native: OpImpl[Any] = OpImpl(op=GELU_TANH, name="native", fn=lambda x: F.gelu(x))
    told: OpImpl[Any] = OpImpl(
        op=GELU_TANH, name="told", fn=lambda x: F.gelu(x, approximate="tanh")
    )
    assert verdicts(told, torch.float32, "dit.ffn") == {"passed"}
    assert "failed" in verdicts(native, torch.float32, "dit.ffn")
    x = torch.linspace(-3, 3, 100)
    on_cpu = torch.ops.npu.npu_gelu(x) - F.gelu(x, approximate="tanh")
    assert on_cpu.abs().max() > 1e-4


@pytest.mark.parametrize("device", ["meta", "cpu", "npu"])
def test_per_sample_weights_of_an_operator_that_takes_sample_0(device: str) -> None:
    """AdaLN's scale and shift are [B, 1, D]; the device would use the first sample's for all."""

    def modulate(
        x_BSD: Tensor,
        weight_D: Tensor | None,
        bias_D: Tensor | None,
        eps: float,
        shift_BD: Tensor,
        scale_BD: Tensor,
    ) -> Tensor:
        return torch.ops.npu.npu_layer_norm_eval(
            x_BSD, [x_BSD.shape[-1]], 1 + scale_BD[:, None], shift_BD[:, None], eps
        )

    x, table = torch.randn(2, 5, 64).to(device), torch.randn(2, 64).to(device)
    with pytest.raises(ContractViolation, match="first elements for every sample"):
        modulate(x, None, None, 1e-5, table, table)
    if device == "npu":
        impl: OpImpl[Any] = OpImpl(op=ADALN_MODULATE, name="eval", fn=modulate)
        assert verdicts(impl, torch.float32, "dit.out") == {"refused"}
