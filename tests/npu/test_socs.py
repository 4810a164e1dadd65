"""Other systems-on-chip and levels, each in a process of its own."""

from __future__ import annotations

import json

import pytest

from stepvideo_virtual_npu import SOCS

from .conftest import VirtualProcess

_FACTS = """
import json, torch, torch.nn.functional as F
import stepvideo_virtual_npu as virtual

def outcome(compute):
    with virtual.recorded_calls() as calls:
        try:
            compute()
        except RuntimeError as error:
            return type(error).__name__ + ": " + str(error).splitlines()[0]
    return [call.op for call in calls if call.op.startswith("npu::")]

def half(*shape):
    return torch.ones(*shape, dtype=torch.float16, device="npu")

q = half(1, 4, 8, 64)
x = torch.linspace(-4, 4, 64)
print(json.dumps({
    "version": torch.npu.utils.get_soc_version(),
    "memory": torch.accelerator.get_memory_info()[1],
    "bfloat16": torch.npu.is_bf16_supported(),
    "jit": not torch.npu.is_jit_compile_false(),
    "sdpa": outcome(lambda: F.scaled_dot_product_attention(q, q, q)),
    "bf16 add": outcome(lambda: q.bfloat16() + 1),
    "fusion": outcome(lambda: torch.ops.npu.npu_fusion_attention(q, q, q, 4, "BNSD")),
    "prompt": outcome(lambda: torch.ops.npu.npu_prompt_flash_attention(
        q, q, q, num_heads=4, input_layout="BNSD")),
    "narrow rms": outcome(lambda: torch.ops.npu.npu_rms_norm(half(2, 8), half(8))),
    "bf16 meta": outcome(lambda: torch.ops.npu.npu_gelu(
        torch.empty(3, dtype=torch.bfloat16, device="meta"))),
    "erf": float((F.gelu(x.npu()).cpu() - F.gelu(x)).abs().max()),
}))
"""


@pytest.mark.parametrize("name", ["310P3", "910_9391", "950"])
def test_socs_differ_as_documented(name: str, virtual_process: VirtualProcess) -> None:
    facts = json.loads(virtual_process(_FACTS, soc=name).stdout)
    soc = SOCS[name]
    assert facts["version"] == soc.version
    assert facts["memory"] == soc.memory
    assert facts["bfloat16"] == soc.bfloat16
    assert facts["jit"] == soc.jit_compile
    old = name == "310P3"
    # torch_npu's own decision; on 310P its attention is composed of matrix products.
    fused = {"910_9391": "npu::npu_fusion_attention_v3", "950": "npu::npu_fusion_attention"}
    assert facts["sdpa"] == ([] if old else [fused[name]])
    assert ("PolicyViolation: " in str(facts["bf16 add"])) == old
    assert ("ContractViolation: " in str(facts["bf16 meta"])) == old
    assert ("310P needs at least 32" in str(facts["narrow rms"])) == old
    assert ("it exists on Atlas A2" in str(facts["fusion"])) == old
    assert ("it exists on" in str(facts["prompt"])) == (name == "950")
    assert (facts["erf"] < 1e-6) == (name == "950"), "only the 950 obeys gelu's approximate"


def test_level_contract_computes_nothing(virtual_process: VirtualProcess) -> None:
    done = virtual_process(
        """
        import torch, stepvideo_virtual_npu as virtual
        q = torch.empty(1, 75888, 48, 128, dtype=torch.bfloat16, device="meta")
        with virtual.recorded_calls() as calls:
            out = torch.ops.npu.npu_fusion_attention_v3(q, q, q, 48, "BSND", scale=0.1)[0]
        assert out.shape == q.shape and calls[0].meta
        for device, error in (("cpu", NotImplementedError), ("npu", virtual.NotModelled)):
            x = torch.empty(3, device=device)
            try:
                torch.ops.npu.npu_gelu(x)
            except error as refused:
                print(str(refused).splitlines()[0])
        try:
            torch.empty(3, device="npu") + 1
        except virtual.NotModelled as refused:
            print(refused)
        """,
        level="contract",
    )
    lines = done.stdout.splitlines()
    assert "npu_gelu" in lines[0] and "CPU" in lines[0]
    assert (
        lines[1:]
        == [
            "level contract of the virtual NPU computes nothing on npu:0; use meta, fake or CPU "
            "tensors, or activate it with level='device'"
        ]
        * 2
    )


def test_level_numerics_computes_on_the_cpu(virtual_process: VirtualProcess) -> None:
    done = virtual_process(
        """
        import torch, torch.nn.functional as F, stepvideo_virtual_npu as virtual
        x = torch.linspace(-3, 3, 50)
        assert torch.allclose(torch.ops.npu.npu_gelu(x, approximate="tanh"),
                              F.gelu(x, approximate="tanh"))
        try:
            torch.ops.npu.npu_rms_norm(x, x[:3])
        except virtual.ContractViolation as refused:
            print(refused)
        """,
        level="numerics",
    )
    assert "gamma [3] is not the end of the input's shape [50]" in done.stdout
