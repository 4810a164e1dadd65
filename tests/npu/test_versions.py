"""Our calls against the operator schemas of several releases of torch_npu, out of their wheels."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stepvideo_core.plugins import load_registry
from stepvideo_core.testing.parity import run_parity
from stepvideo_virtual_npu import recorded_calls
from stepvideo_virtual_npu.cann.libraries import package_folder
from stepvideo_virtual_npu.contracts import CONTRACTS
from stepvideo_virtual_npu.operators import vendor_operators
from stepvideo_virtual_npu.recording import Call
from stepvideo_virtual_npu.schemas import differences, read_schemas

# `make test-npu` puts them there; nothing of them is ever installed.
WHEELS = sorted((Path(sys.prefix) / "older").glob("torch_npu-*.whl"))


@pytest.fixture(scope="module")
def installed() -> dict[str, str]:
    return read_schemas(package_folder("torch_npu") / "lib" / "libtorch_npu.so")


@pytest.fixture(scope="module")
def our_calls() -> dict[str, list[Call]]:
    """Every call of an `npu::` operator that the parity suite makes the Ascend backend do."""
    dtypes = [torch.bfloat16, torch.float32]
    with recorded_calls() as calls:
        results = list(run_parity(load_registry(), backends=["npu"], dtypes=dtypes))
    assert not [result for result in results if result.status == "failed"]
    found: dict[str, list[Call]] = {}
    for call in calls:
        if call.op.startswith("npu::"):
            found.setdefault(call.op, []).append(call)
    assert len(found) >= 5
    return found


def test_the_texts_are_what_the_dispatcher_got(installed: dict[str, str]) -> None:
    """Reading the wheel finds, for every operator with a contract, exactly the loaded schema."""
    for op in vendor_operators():
        if op.name().removeprefix("npu::") in CONTRACTS:
            assert torch._C.parse_schema(installed[op.name()]) == op._schema
    assert len(installed) > 300


@pytest.mark.skipif(not WHEELS, reason=f"no wheels in {sys.prefix}/older; `make test-npu` has them")
@pytest.mark.parametrize("wheel", WHEELS, ids=lambda wheel: wheel.name.split("-")[1])
def test_older_releases_take_our_calls(wheel: Path, our_calls: dict[str, list[Call]]) -> None:
    older = read_schemas(wheel)
    complaints = {
        sentence
        for calls in our_calls.values()
        for call in calls
        for sentence in differences(call, older)
    }
    assert complaints == set()


def _mutants(schemas: dict[str, str], op: str) -> Iterator[tuple[str, str]]:
    text = schemas[op]
    yield text.replace("str input_layout", "int input_layout"), "input_layout is int, not str"
    yield text.replace("scale=1.", "scale=2."), ""  # passed, so its default does not matter
    yield text.replace("keep_prob=1.", "keep_prob=0.5"), "the default of keep_prob is 0.5"
    yield text.replace(" pre_tockens=", " pre_tokens="), "has no parameter pre_tockens"
    yield text.replace("Tensor key, Tensor value", "Tensor value, Tensor key"), "another order"
    yield text.replace("Tensor query", "Tensor query, Tensor extra"), "demands extra"


def test_differences_are_found(installed: dict[str, str]) -> None:
    op = "npu::npu_fusion_attention"
    q = torch.empty(1, 8, 4, 64, device="meta", dtype=torch.float16)
    with recorded_calls() as calls:
        torch.ops.npu.npu_fusion_attention(q, q, q, 4, "BSND", scale=0.1, pre_tockens=65536)
    (call,) = calls
    assert differences(call, installed) == []
    assert differences(call, {}) == [f"{op} does not exist"]
    for text, sentence in _mutants(installed, op):
        assert text != installed[op]
        found = differences(call, {op: text})
        assert bool(found) == bool(sentence)
        assert not sentence or any(sentence in complaint for complaint in found), found
    assert differences(replace(call, op="npu::npu_of_another_name"), installed) != []
