"""The plugin's promises: lazy imports, an explicit switch, broken installs cost one sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from stepvideo_core.dispatch import find_library
from stepvideo_cuda.capability import Capability, driver_version


def _python(code: str, path: Path | None = None, **environment: str) -> Any:
    """Run code in a fresh interpreter; the JSON it prints last."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("TRITON_INTERPRET", "STEPVIDEO_CUDA_INTERPRET")
    }
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


_REFUSALS = """
    import json, torch
    from stepvideo_core.plugins import load_registry
    from stepvideo_core.testing import CASES
    registry = load_registry()
    site = {case.op.name: case.site for case in CASES}
    print(json.dumps({
        "why_not": registry.why_not("cuda"),
        "impls": {
            f"{impl.op.name}:{impl.name}": impl.why_not(site[impl.op.name])
            for impl in registry.implementations("cuda")
        },
    }))
"""
SWITCH = {"STEPVIDEO_CUDA_INTERPRET": "1", "TRITON_INTERPRET": "1"}


def test_importing_the_plugin_imports_no_vendor_library() -> None:
    loaded = _python("""
        import json, sys
        from stepvideo_core.plugins import load_registry
        registry = load_registry()
        registry.get("cuda")
        print(json.dumps([n for n in ("triton", "flash_attn") if n in sys.modules]))
    """)
    assert loaded == []


def test_without_the_switch_a_cpu_build_says_so() -> None:
    found = _python(_REFUSALS)
    assert found["impls"] == {}
    assert "CUDA" in found["why_not"][0]


@pytest.mark.parametrize(
    ("before", "environment", "sentence"),
    [
        ("", {"STEPVIDEO_CUDA_INTERPRET": "1"}, "needs TRITON_INTERPRET=1"),
        (
            "import os, triton; os.environ['TRITON_INTERPRET'] = '1'",
            {"STEPVIDEO_CUDA_INTERPRET": "1"},
            "imported before TRITON_INTERPRET=1 was set",
        ),
    ],
)
def test_half_a_switch_is_refused(before: str, environment: dict[str, str], sentence: str) -> None:
    found = _python(f"{before}\n{textwrap.dedent(_REFUSALS)}", **environment)
    assert sentence in found["why_not"][0]


def test_a_broken_flash_attn_costs_itself_only(tmp_path: Path) -> None:
    package = tmp_path / "flash_attn"
    package.mkdir()
    (package / "__init__.py").write_text(
        "raise ImportError('flash_attn_2_cuda.so: undefined symbol: _ZN3c104cuda9SetDeviceEi')"
    )
    (tmp_path / "flash_attn_interface.py").write_text("raise OSError('libcudart.so.12')")
    found = _python(_REFUSALS, tmp_path, **SWITCH)
    assert found["why_not"] == []
    impls = found["impls"]
    assert impls["attention:flash2"][0] == (
        "flash_attn is installed but broken: ImportError: flash_attn_2_cuda.so: undefined symbol: "
        "_ZN3c104cuda9SetDeviceEi"
    )
    assert impls["attention:flash3"][0] == (
        "flash_attn_interface is installed but broken: OSError: libcudart.so.12"
    )
    assert "broken" in impls["attention:flash4"][0]
    assert impls["attention:triton"] == [] and impls["rms_norm:triton"] == []


def test_a_broken_triton_leaves_the_convolutions(tmp_path: Path) -> None:
    package = tmp_path / "triton"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('GLIBC_2.34 not found')")
    # The interpreter check imports nothing, so the backend itself still loads.
    found = _python(_REFUSALS, tmp_path, **SWITCH)
    assert found["why_not"] == []
    sentence = "stepvideo_kernels is installed but broken: RuntimeError: GLIBC_2.34 not found"
    for address in ("attention:triton", "rms_norm:triton", "group_norm_silu:triton"):
        assert found["impls"][address][0] == sentence
    assert found["impls"]["causal_conv3d:channels_last"] == []


def test_missing_and_incomplete_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_a_library.py").write_text("answer = 42")
    (tmp_path / "needs_another.py").write_text("import surely_not_there")
    monkeypatch.syspath_prepend(tmp_path)
    absent = find_library("surely_not_there.inner", needs=(), install="get it")
    assert absent.problem == "surely_not_there.inner is not installed; get it"
    needing = find_library("needs_another", needs=(), install="get it")
    assert needing.problem is not None
    assert needing.problem.startswith("needs_another cannot be imported: No module named")
    half = find_library("half_a_library", needs=("flash_attn_func",), install="get 2.0")
    assert half.problem == "half_a_library is installed but has no flash_attn_func; get 2.0"


@pytest.mark.parametrize(
    ("version", "architecture"),
    [
        ((7, 0), "older"),
        ((7, 5), "turing"),
        ((8, 6), "ampere"),
        ((8, 9), "ada"),
        ((9, 0), "hopper"),
        ((10, 3), "blackwell"),
        ((12, 1), "blackwell_rtx"),
        ((13, 0), "newer"),
    ],
)
def test_generations(version: tuple[int, int], architecture: str) -> None:
    device = Capability(name="x", major=version[0], minor=version[1], memory=0)
    assert device.architecture == architecture


def test_driver_version(tmp_path: Path) -> None:
    proc = tmp_path / "version"
    assert driver_version(proc) == "unknown"
    proc.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19\nGCC")
    assert driver_version(proc) == "535.129.03"
