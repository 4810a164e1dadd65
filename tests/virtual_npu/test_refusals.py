"""Where the virtual NPU cannot start: one sentence, exit code 2, nothing changed."""

from __future__ import annotations

import importlib.util
import platform
import subprocess
import sys

import pytest

from stepvideo_virtual_npu import VirtualNpuUnavailable, activate, active
from stepvideo_virtual_npu.environment import _check_pair, check_environment
from stepvideo_virtual_npu.program import run_program

needs_linux = pytest.mark.skipif(
    platform.system() != "Linux", reason="other systems are refused before anything else"
)
absent = pytest.mark.skipif(
    importlib.util.find_spec("torch_npu") is not None,
    reason="about machines without torch_npu; tests/npu is about the others",
)


def test_importing_changes_nothing() -> None:
    program = (
        "import os, sys; before = dict(os.environ); import stepvideo_virtual_npu; "
        "assert before == dict(os.environ); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@needs_linux
@absent
def test_without_torch_npu() -> None:
    with pytest.raises(VirtualNpuUnavailable, match="torch_npu is not installed; `make test-npu`"):
        activate()
    assert active() is None


@pytest.mark.parametrize(
    ("system", "libc", "machine", "sentence"),
    [
        ("darwin", "", "arm64", "needs Linux with glibc"),
        ("linux", "", "x86_64", "needs Linux with glibc"),
        ("linux", "glibc", "riscv64", "runs on x86_64 and aarch64, not on riscv64"),
    ],
)
def test_platforms(
    system: str, libc: str, machine: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "libc_ver", lambda: (libc, "2.39"))
    monkeypatch.setattr(platform, "machine", lambda: machine)
    with pytest.raises(VirtualNpuUnavailable, match=sentence):
        check_environment()


def test_pairs() -> None:
    _check_pair("2.13.0+cpu", "2.13.0")
    _check_pair("2.8.0", "2.8.0.post5")
    with pytest.raises(VirtualNpuUnavailable, match=r"install --no-deps torch_npu==2\.9\.0"):
        _check_pair("2.9.0+cpu", "2.8.0.post5")


@needs_linux
def test_a_cann_that_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASCEND_HOME_PATH", "/usr/local/Ascend/latest")
    with pytest.raises(VirtualNpuUnavailable, match="ASCEND_HOME_PATH is set"):
        check_environment()


def test_unknown_choices() -> None:
    with pytest.raises(VirtualNpuUnavailable, match="no SoC '910A'; known are 910B2, 910_9391"):
        activate("910A")
    with pytest.raises(VirtualNpuUnavailable, match="no level 'full'; known are contract"):
        activate(level="full")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["gcc", "x.c"], "'gcc' is neither a Python script nor a console script"),
        (["nowhere.py"], "there is no script nowhere.py"),
        (["python", "-i"], "python -i is not offered"),
    ],
)
def test_programs_that_cannot_run(command: list[str], sentence: str) -> None:
    with pytest.raises(VirtualNpuUnavailable, match=sentence):
        run_program(command)


@needs_linux
@absent
def test_the_command_says_it_in_one_line() -> None:
    command = [sys.executable, "-m", "stepvideo_virtual_npu", "--", "python", "-c", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: torch_npu is not installed")
