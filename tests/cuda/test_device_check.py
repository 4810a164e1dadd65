"""The device script runs every section; here at toy sizes, on the CPU, interpreted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from stepvideo_bench.device_check import failures, markdown

_SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "device_check.sh"


def _run(out: Path, *options: str, **switch: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", _SCRIPT, out, *options],
        env={**os.environ, "PYTHON": sys.executable, **switch},
        capture_output=True,
        text=True,
        check=False,
    )


def test_smoke_run_fills_every_section(tmp_path: Path) -> None:
    done = _run(tmp_path, "--smoke", STEPVIDEO_CUDA_INTERPRET="1", TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "device_check.json").read_text())
    sections = report["sections"]
    assert failures(report) == []
    assert [row["probe"] for row in sections["probes"]] == ["copy", "bf16 matmul"]
    assert {row["status"] for row in sections["parity"]} == {"passed", "skipped"}
    measured = {row["impl"] for row in sections["kernels"] if row["status"] == "measured"}
    assert {"cuda:triton", "cuda:channels_last", "reference:eager"} <= measured
    errors = {row["backend"]: row["relative error"] for row in sections["accuracy"]}
    # The interpreter rounds bfloat16 towards zero, so no more than the same order is asked here.
    assert 0 < errors["cuda"] < 4 * errors["eager"]
    assert all(row["max relative error"] < 1e-4 for row in sections["tiny"])
    assert [row["what"] for row in sections["speed"]][-1] == "48-layer forward, extrapolated"
    assert sections["vae"][0]["ms"] > 0
    assert "## failures" in (tmp_path / "device_check.md").read_text()


def test_without_a_device_it_refuses_with_a_sentence(tmp_path: Path) -> None:
    done = _run(tmp_path, STEPVIDEO_CUDA_INTERPRET="1", TRITON_INTERPRET="1")
    assert done.returncode == 2
    assert "the cuda backend cannot work here" in done.stderr


def test_it_needs_torch_and_triton_only() -> None:
    """None of the project's other dependencies, so that a bare GPU machine will do."""
    program = (
        "import sys, stepvideo_bench.device_check\n"
        "others = {'pluggy', 'psutil', 'transformers', 'safetensors', 'sentencepiece', 'av', 'PIL',"
        " 'typer', 'rich'}\n"
        "print(sorted(others & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_failures_are_found_and_tabulated() -> None:
    row = {
        "op": "rms_norm",
        "impl": "cuda:triton",
        "dtype": "float16",
        "case": "odd|width",
        "status": "failed",
        "error": 0.2,
        "budget": 0.1,
        "reasons": ["error 0.2 exceeds the budget 0.1"],
    }
    report = {"environment": {"device": "x"}, "sections": {"parity": [row], "vae": []}}
    (line,) = failures(report)
    assert "cuda:triton" in line and "exceeds" in line
    text = markdown(report)
    assert "| rms_norm | cuda:triton | float16 | 0 | 1 | 0 | 2 |" in text
    assert "## vae\n\nnothing" in text
