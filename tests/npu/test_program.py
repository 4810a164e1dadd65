"""`python -m stepvideo_virtual_npu` and `stepvideo parity --virtual`, as a user meets them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from .conftest import VirtualProcess


def test_programs_run_as_themselves(virtual_process: VirtualProcess, tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(
        "import sys, torch\n"
        "print(__name__, sys.argv[1:], torch.ones(2, device='npu').sum().item())\n"
        "sys.exit(7)\n"
    )
    done = virtual_process(command=["python", str(script), "--soc", "x"], check=False)
    assert done.stdout == "__main__ ['--soc', 'x'] 2.0\n"
    assert done.returncode == 7


def test_a_run_of_the_command_line(
    virtual_process: VirtualProcess, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    output = tmp_path / "fox.safetensors"
    size = ["--frames", "17", "--height", "32", "--width", "48", "--steps", "1"]
    command = ["stepvideo", "run", "a fox", "--model", str(tiny_checkpoint), "--backend", "npu"]
    done = virtual_process(command=[*command, *size, "--output", str(output), "--json"])
    record = json.loads(done.stdout)
    assert output.is_file()
    impls = {row["impl"] for row in record["plan"]}
    assert "npu:fusion" in impls
    assert record["versions"]["torch_npu"]


def test_parity_on_the_virtual_device() -> None:
    command = [sys.executable, "-m", "stepvideo_core.cli", "parity", "--backend", "npu"]
    selection = ["--virtual", "--op", "gelu_tanh", "--dtype", "bfloat16", "--json"]
    done = subprocess.run([*command, *selection], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    where = "a virtual Ascend910B2 in host memory, under the real torch_npu"
    assert result["record"]["runs"] == [{"backend": "npu", "level": "E2", "on": where}]
    assert {row["impl"] for row in result["results"]} == {"npu:fused"}
    assert {row["status"] for row in result["results"]} == {"passed"}
    assert "4 passed, 0 failed, 0 skipped" in done.stderr
    assert "evidence E2: on a virtual Ascend910B2" in done.stderr
    assert "no hardware was involved" in done.stderr


def test_an_environment_that_does_not_fit(virtual_process: VirtualProcess) -> None:
    for code, sentence in (
        ("import torch_npu", "torch_npu is imported already"),
        ("os.environ['ASCEND_HOME_PATH'] = '/usr/local/Ascend'", "unset it"),
    ):
        prelude = "import os; os.environ['TORCH_DEVICE_BACKEND_AUTOLOAD'] = '0'; "
        prelude += "import sys, types; "
        prelude += code.replace(
            "import torch_npu", "sys.modules['torch_npu'] = types.ModuleType('torch_npu')"
        )
        program = f"{prelude}; import stepvideo_virtual_npu; stepvideo_virtual_npu.activate()"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert sentence in done.stderr.splitlines()[-1]
