"""The command line on the virtual device, other chips, and the real torch_npu without CANN."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

SIZE = ("--frames", "17", "--height", "32", "--width", "48", "--steps", "2", "--dtype", "float32")


def _run_options(model: Path, output: Path, *options: str) -> list[str]:
    prompt = ("run", "a red circle", "--model", str(model))
    return [*prompt, *SIZE, "--json", *options, "-o", str(output)]


def test_a_whole_run_equals_the_reference_on_the_cpu(
    virtual_process: Any, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    ours_at, theirs_at = (tmp_path / f"{name}.safetensors" for name in ("npu", "cpu"))
    options = _run_options(tiny_checkpoint, ours_at, "--backend", "npu", "--no-fallback")
    done = virtual_process(command=["stepvideo", *options])
    record = json.loads(done.stdout)
    assert record["device"] == "npu:0"
    assert {row["impl"].split(":")[0] for row in record["plan"]} == {"npu", "composed"}
    attention = {row["site"]: row["impl"] for row in record["plan"] if row["op"] == "attention"}
    assert attention == {
        "step_llm.self": "npu:chunked",
        "dit.self": "npu:fusion",
        "dit.cross": "npu:fusion",
        "vae.mid": "npu:fusion",
    }
    settings = record["backend_settings"]["npu"]
    assert settings[0].startswith("jit_compile off: ")
    assert any(line.startswith("conv.allow_hf32") for line in settings)
    peaks = {stage["name"]: stage["device_peak_bytes"] for stage in record["stages"]}
    assert peaks and all(peaks.values()), "memory statistics come from torch.accelerator"

    # Without the virtual device this is the real torch_npu without CANN: everything else works.
    reference = _run_options(tiny_checkpoint, theirs_at, "--backend", "reference")
    plain = _plain([sys.executable, "-m", "stepvideo_core.cli", *reference])
    assert plain.returncode == 0, plain.stderr
    ours, theirs = load_file(ours_at), load_file(theirs_at)
    scale = theirs["latents"].abs().max()
    assert (ours["latents"] - theirs["latents"]).abs().max() / scale < 2e-5
    difference = (ours["frames"].int() - theirs["frames"].int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() <= 0.001
    assert theirs["frames"].float().std() > 1, "a constant frame would prove nothing"


def _plain(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "TORCH_DEVICE_BACKEND_AUTOLOAD"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_real_torch_npu_without_cann_costs_one_line() -> None:
    died = _plain([sys.executable, "-c", "import torch"])
    assert died.returncode != 0, "torch survives it now: is the guard still needed?"
    done = _plain([sys.executable, "-m", "stepvideo_core.cli", "backends", "--json"])
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    rows = {row["name"]: row for row in json.loads(done.stdout)["backends"]}
    (reason,) = rows["npu"]["reasons"]
    assert reason.startswith("torch_npu 2.13.0 is here and CANN is not (libascendcl.so: cannot")
    assert "goes with torch_npu 2.13.0 and CANN 9.2.0" in reason
    assert rows["reference"]["available"] is True


_ATTENTION_OF_A_CHIP = """
    import json, torch
    from stepvideo_core.dispatch import DispatchPlan, DispatchPolicy
    from stepvideo_core.errors import NoImplementation
    from stepvideo_core.config import VAE_V2, TransformerConfig, StepLLMConfig
    from stepvideo_core.models.step_llm import StepLLM
    from stepvideo_core.models.transformer import StepVideoTransformer
    from stepvideo_core.models.vae import VideoVAE
    from stepvideo_core.plugins import load_registry

    found = {}
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        policy = DispatchPolicy.parse(backend="npu", allow_fallback=False)
        plan = DispatchPlan(load_registry(), policy, device=torch.device("npu", 0), dtype=dtype)
        try:
            with torch.device("meta"):
                StepVideoTransformer(TransformerConfig(num_layers=1), plan)
                VideoVAE(VAE_V2, plan)
                if WITH_LLM:
                    StepLLM(StepLLMConfig(num_layers=1), plan)
        except NoImplementation as error:
            found[str(dtype)] = str(error)
        else:
            found[str(dtype)] = {
                choice.site.name: choice.impl
                for choice in plan.choices
                if choice.op == "attention"
            }
    print(json.dumps({"found": found, "describe": load_registry().get("npu").describe()}))
"""
_FUSED = {
    "dit.self": "npu:fusion",
    "dit.cross": "npu:fusion",
    "vae.mid": "npu:fusion",
    "step_llm.self": "npu:chunked",
}


@pytest.mark.parametrize(
    ("soc", "name", "with_llm"),
    [
        ("910_9391", "Ascend910_9391 (A3)", True),
        # The vendor's softmax of the 950 is not modelled by the virtual device.
        ("950", "Ascend950 (950)", False),
    ],
)
def test_newer_chips_serve_every_site_in_every_dtype(
    virtual_process: Any, soc: str, name: str, with_llm: bool
) -> None:
    code = _ATTENTION_OF_A_CHIP.replace("WITH_LLM", str(with_llm))
    report = json.loads(virtual_process(code, soc=soc).stdout.splitlines()[-1])
    expected = {site: impl for site, impl in _FUSED.items() if with_llm or impl == "npu:fusion"}
    assert report["found"] == dict.fromkeys(
        ("torch.bfloat16", "torch.float16", "torch.float32"), expected
    )
    assert report["describe"][1].startswith(f"npu:0 {name}, ")


_PARITY_OF_A_CHIP = """
    from stepvideo_core.testing import run_parity

    rows = run_parity(load_registry(), backends=["npu"], ops=["attention", "rms_norm", "rope_3d"],
                      dtypes=[torch.float16])
    print(json.dumps([row.as_json() for row in rows]))
"""


def test_the_inference_card_computes_in_float16(virtual_process: Any) -> None:
    code = _ATTENTION_OF_A_CHIP.replace("WITH_LLM", "True") + _PARITY_OF_A_CHIP
    choices, parity = virtual_process(code, soc="310P3").stdout.splitlines()[-2:]
    found = json.loads(choices)["found"]
    assert (
        "bfloat16 came with the Ascend910B (A2); this is Ascend310P3 (310P)"
        in (found["torch.bfloat16"])
    )
    assert found["torch.float16"] == {
        "dit.self": "npu:prompt_flash",
        "dit.cross": "npu:prompt_flash",
        "vae.mid": "npu:chunked",
        "step_llm.self": "npu:chunked",
    }
    assert set(found["torch.float32"].values()) == {"npu:chunked"}

    rows = json.loads(parity)
    assert [row for row in rows if row["status"] == "failed"] == []
    passed = {(row["impl"], row["site"]) for row in rows if row["status"] == "passed"}
    assert {
        ("npu:prompt_flash", "dit.self"),
        ("npu:prompt_flash", "dit.cross"),
        ("npu:chunked", "vae.mid"),
        ("npu:fused", "dit.cross"),
        ("npu:rotary", "dit.self"),
    } <= passed


def test_the_device_check_runs_every_section(virtual_process: Any, tmp_path: Path) -> None:
    check = ["python", "-m", "stepvideo_bench.device_check", "--smoke", "--backend", "npu"]
    done = virtual_process(command=[*check, "--out", str(tmp_path)], check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "device_check.json").read_text())
    sections = report["sections"]
    assert {row["status"] for row in sections["parity"]} == {"passed", "skipped"}
    measured = {row["impl"] for row in sections["kernels"] if row["status"] == "measured"}
    assert {"npu:fusion", "npu:fused", "npu:rotary", "npu:native", "npu:torch"} <= measured
    errors = {row["backend"]: row["relative error"] for row in sections["accuracy"]}
    assert 0 < errors["npu"] < 2 * errors["eager"]
    assert all(row["max relative error"] < 1e-4 for row in sections["tiny"])
    assert any(line.startswith("npu:0 Ascend910B2") for line in report["environment"]["describe"])
    assert "please send: " in done.stdout


def test_a_device_that_is_not_there_is_named() -> None:
    from stepvideo_core.dispatch import DispatchPolicy, select_device
    from stepvideo_core.errors import InvalidRequest
    from stepvideo_core.plugins import load_registry

    registry = load_registry()
    npu = torch.device("npu", 0)
    assert select_device(registry, DispatchPolicy()) == npu
    assert select_device(registry, DispatchPolicy(backend="npu")) == npu
    assert select_device(registry, DispatchPolicy(), "npu:0") == npu
    with pytest.raises(InvalidRequest, match="'npu:5' is not here: torch sees 1 npu"):
        select_device(registry, DispatchPolicy(backend="npu"), "npu:5")
