"""The version triangle, read from files that installers leave, and what is said about it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from stepvideo_ascend.backend import cann_problems
from stepvideo_ascend.settings import allocator
from stepvideo_ascend.versions import PAIRS, Stack, advice, cann_remark, mismatches, read_stack

STACK = Stack(
    torch="2.13.0",
    torch_npu="2.13.0",
    cann=None,
    cann_home=None,
    sourced=False,
    driver=None,
    devices=0,
)
MISSING = OSError("libascendcl.so: cannot open shared object file: No such file or directory")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_bare_machine(tmp_path: Path) -> None:
    stack = read_stack(tmp_path, {})
    assert (stack.cann, stack.cann_home, stack.sourced) == (None, None, False)
    assert (stack.driver, stack.devices) == (None, 0)
    assert str(stack).endswith("CANN not found, driver not found")


def test_an_installed_machine(tmp_path: Path) -> None:
    ascend = tmp_path / "usr/local/Ascend"
    info = ascend / "ascend-toolkit/latest/aarch64-linux/ascend_toolkit_install.info"
    _write(info, "package_name=Ascend-cann-toolkit\nversion=8.5.0\narch=aarch64\n")
    _write(ascend / "driver/version.info", "Version=25.5.0\nascendhal_version=7.35.23\n")
    for name in ("davinci0", "davinci1", "davinci_manager", "davinci15"):
        _write(tmp_path / "dev" / name, "")
    stack = read_stack(tmp_path, {})
    assert (stack.cann, stack.driver, stack.devices) == ("8.5.0", "25.5.0", 3)
    assert stack.cann_home == ascend / "ascend-toolkit/latest"
    assert stack.sourced is False
    assert str(stack).endswith("CANN 8.5.0, driver 25.5.0")


def test_the_environment_goes_before_the_usual_places(tmp_path: Path) -> None:
    usual = tmp_path / "usr/local/Ascend/ascend-toolkit/latest"
    _write(usual / "compiler/version.info", "Version=8.2.RC1\n")
    _write(tmp_path / "mine/compiler/version.info", "# a comment\nVersion = 9.2.0\n")
    stack = read_stack(tmp_path, {"ASCEND_HOME_PATH": str(tmp_path / "mine")})
    assert (stack.cann, stack.cann_home, stack.sourced) == ("9.2.0", tmp_path / "mine", True)
    assert read_stack(tmp_path, {}).cann == "8.2.RC1"


def test_an_unreadable_or_odd_file_is_passed_over(tmp_path: Path) -> None:
    ascend = tmp_path / "usr/local/Ascend"
    (ascend / "driver/version.info").mkdir(parents=True)
    _write(ascend / "latest/compiler/version.info", "no such thing here\n")
    stack = read_stack(tmp_path, {})
    assert (stack.driver, stack.cann) == (None, None)


@pytest.mark.parametrize(
    ("torch_version", "torch_npu", "sentence"),
    [
        ("2.13.0", "2.13.0", None),
        ("2.12.0", "2.12.0.post3", None),
        ("2.10.0", "2.10.0rc2", None),
        (
            "2.12.0",
            "2.13.0",
            "torch_npu 2.13.0 is made for torch 2.13.0 and this is torch 2.12.0; torch 2.12.0 "
            "goes with torch_npu 2.12.0.post3 and CANN 9.2.0 (pip install "
            "torch-npu==2.12.0.post3), or pip install torch==2.13.0",
        ),
        (
            "2.13.0",
            None,
            "torch_npu is not installed; torch 2.13.0 goes with torch_npu 2.13.0 and CANN 9.2.0 "
            "(pip install torch-npu==2.13.0)",
        ),
    ],
)
def test_torch_and_torch_npu(
    torch_version: str, torch_npu: str | None, sentence: str | None
) -> None:
    stack = replace(STACK, torch=torch_version, torch_npu=torch_npu)
    assert mismatches(stack) == ([sentence] if sentence else [])


def test_every_pair_fits_by_our_own_rule() -> None:
    for torch_version, (torch_npu, _) in PAIRS.items():
        assert mismatches(replace(STACK, torch=torch_version, torch_npu=torch_npu)) == []
    assert "no torch_npu is known for torch 1.0.0; take one of 2.14.0" in advice("1.0.0")


def test_an_old_cann_is_remarked_on_not_refused() -> None:
    home = Path("/usr/local/Ascend/latest")
    old = replace(STACK, cann="8.3.RC1", cann_home=home)
    assert mismatches(old) == []
    assert cann_remark(old) == [
        "CANN 8.3.RC1 is older than what torch_npu 2.13.0 is documented with (8.5 at least, 9.2.0 "
        "at best)"
    ]
    for version in ("8.5.0", "9.2.0", "10.0"):
        assert cann_remark(replace(old, cann=version)) == []
    # An older build of torch_npu has its own, older CANN.
    assert cann_remark(replace(old, torch="2.8.0", torch_npu="2.8.0")) == []


def test_what_is_wrong_with_cann(tmp_path: Path) -> None:
    home = tmp_path / "ascend-toolkit" / "latest"
    _write(home.parent / "set_env.sh", "")
    (absent,) = cann_problems(STACK, MISSING)
    assert absent.startswith("torch_npu 2.13.0 is here and CANN is not (libascendcl.so: cannot")
    (asleep,) = cann_problems(replace(STACK, cann="9.2.0", cann_home=home), MISSING)
    assert asleep == (
        "CANN 9.2.0 is installed but this shell does not use it: "
        f"source {home.parent / 'set_env.sh'}"
    )
    (broken,) = cann_problems(
        replace(STACK, cann="9.2.0", cann_home=home, sourced=True),
        OSError("libgraph.so: undefined symbol: _Z1x"),
    )
    assert "does not open (libgraph.so: undefined symbol: _Z1x)" in broken
    assert cann_problems(STACK, None) == []


def test_the_allocator_s_configuration_is_reported() -> None:
    assert str(allocator({})).startswith("PYTORCH_NPU_ALLOC_CONF not set: ")
    for variable in ("PYTORCH_NPU_ALLOC_CONF", "PYTORCH_ALLOC_CONF"):
        setting = allocator({variable: "expandable_segments:True"})
        assert str(setting) == f"{variable} expandable_segments:True: from the environment"
