"""The plugin's promises: lazy imports, a broken install costs one sentence, nothing else breaks.

The packages are fabricated: a folder called torch_npu with the metadata that pip would leave, which
fails to import as the real one does without CANN. tests/npu has the real one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

CANN_ERROR = "libhccl.so: cannot open shared object file: No such file or directory"


def _run(code: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "TORCH_DEVICE_BACKEND_AUTOLOAD"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def _json(code: str, path: Path | None = None) -> Any:
    done = _run(code, path)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def without_cann(tmp_path: Path) -> Path:
    """A site folder with a torch_npu for this torch that cannot be imported."""
    version = torch.__version__.split("+")[0]
    package = tmp_path / "torch_npu"
    package.mkdir()
    (package / "__init__.py").write_text(f"raise ImportError({CANN_ERROR!r})")
    info = tmp_path / f"torch_npu-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch_npu\nVersion: {version}\n")
    (info / "entry_points.txt").write_text("[torch.backends]\ntorch_npu = torch_npu:_autoload\n")
    return tmp_path


_WHY_NOT = """
    import json, os
    os.environ["TORCH_DEVICE_BACKEND_AUTOLOAD"] = "0"
    from stepvideo_core.plugins import load_registry
    print(json.dumps(load_registry().why_not("npu")))
"""


def test_importing_the_plugin_imports_no_vendor_library() -> None:
    loaded = _json("""
        import json, sys
        from stepvideo_core.plugins import load_registry
        load_registry().get("npu")
        print(json.dumps([name for name in ("torch_npu", "mindiesd") if name in sys.modules]))
    """)
    assert loaded == []


def test_without_torch_npu_it_says_what_to_install() -> None:
    (reason,) = _json(_WHY_NOT)
    assert reason.startswith("torch_npu is not installed; torch ")
    assert "pip install torch-npu==" in reason


def test_a_plain_torch_dies_of_it_and_that_is_why_we_hold_it_back(without_cann: Path) -> None:
    done = _run("import torch", without_cann)
    assert done.returncode == 1 and "TORCH_DEVICE_BACKEND_AUTOLOAD" in done.stderr


def test_the_command_line_survives_a_torch_npu_without_cann(
    without_cann: Path, tiny_checkpoint: Path
) -> None:
    command = "import sys; from stepvideo_core.cli import main; sys.argv[1:] = {}; main()"
    done = _run(command.format(["backends", "--json"]), without_cann)
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)["backends"]}
    (reason,) = rows["npu"]["reasons"]
    assert "is here and CANN is not (libascendcl.so: cannot open shared object file" in reason
    assert "\n" not in reason
    assert rows["reference"]["available"] is True

    asked = ["plan", "--model", str(tiny_checkpoint), "--backend"]
    named = _run(command.format([*asked, "npu"]), without_cann)
    assert named.returncode == 2
    assert named.stderr.startswith("error: backend 'npu' cannot work here: torch_npu ")
    assert _run(command.format([*asked, "auto"]), without_cann).returncode == 0


def test_transformers_does_not_see_it_either(without_cann: Path) -> None:
    found = _json(
        """
        import json
        from stepvideo_core.cli.autoload import hold_back_torch_npu
        hold_back_torch_npu()
        from stepvideo_core.models.clip import HunyuanClip
        import importlib.util
        print(json.dumps([HunyuanClip.__name__, importlib.util.find_spec("torch_npu") is None]))
        """,
        without_cann,
    )
    assert found == ["HunyuanClip", True]


@pytest.mark.parametrize(
    "before", [None, "0", "1"], ids=["unset", "from a process of ours", "wanted by the user"]
)
def test_without_cann_the_environment_does_not_matter(
    before: str | None, without_cann: Path
) -> None:
    setting = "pass" if before is None else f"os.environ[AUTOLOAD] = {before!r}"
    found = _json(
        f"""
        import json, os, sys
        from stepvideo_core.cli.autoload import AUTOLOAD, hold_back_torch_npu
        {setting}
        hold_back_torch_npu()
        print(json.dumps([os.environ[AUTOLOAD], "torch_npu" in sys.modules]))
        """,
        without_cann,
    )
    assert found == ["0", True]


def test_a_torch_npu_for_another_torch_is_named(without_cann: Path) -> None:
    (info,) = without_cann.glob("*.dist-info")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torch_npu\nVersion: 2.1.0.post3\n")
    (reason,) = _json(_WHY_NOT + "    import stepvideo_core.models.clip\n", without_cann)
    assert reason.startswith("torch_npu 2.1.0.post3 is made for torch 2.1.0 and this is torch ")


def test_an_import_that_fails_in_spite_of_cann_costs_one_sentence(without_cann: Path) -> None:
    """CANN's libraries open, torch_npu fails all the same: as with a CANN of another release."""
    (reason, blocked) = _json(
        """
        import json, os, sys
        os.environ["TORCH_DEVICE_BACKEND_AUTOLOAD"] = "0"
        import stepvideo_ascend.backend
        stepvideo_ascend.backend.missing_cann_library = lambda: None
        from stepvideo_core.plugins import load_registry
        (reason,) = load_registry().why_not("npu")
        print(json.dumps([reason, sys.modules["torch_npu"] is None]))
        """,
        without_cann,
    )
    assert reason.startswith(f"torch_npu is installed but broken: ImportError: {CANN_ERROR}; torch")
    assert blocked is True
