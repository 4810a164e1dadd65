"""Build the wheel, install it into an environment of its own and make a video with it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOREIGN = ("backends", "kernels", "benchmarks", "training", "tests")
PROGRAM = """
import importlib.util, sys
for name in {foreign!r}:
    assert importlib.util.find_spec(name) is None, f"the wheel leaks a package called {{name}}"
for name in (
    "stepvideo_bench",
    "stepvideo_eval",
    "stepvideo_kernels",
    "stepvideo_training",
    "stepvideo_virtual_npu",
    "stepvideo_world",
):
    assert importlib.util.find_spec(name) is not None, f"the wheel lacks {{name}}"
import stepvideo_core
from stepvideo_training.config_file import load_config
load_config("tiny")
from stepvideo_core.plugins import load_registry
registry = load_registry()
# The example's metadata is visible through the borrowed dependencies, its checkout is not.
assert set(registry.failures) <= {{"numpy64"}}, registry.failures
assert {{"cuda", "reference"}} <= set(registry.names), registry.names
assert {root!r} not in stepvideo_core.__file__, stepvideo_core.__file__
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        pip = [sys.executable, "-m", "pip", "--quiet"]
        subprocess.run([*pip, "wheel", "--no-deps", "-w", work, ROOT], check=True)
        (wheel,) = work.glob("stepvideo-*.whl")
        tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
        packages = {name for name in tops if not name.endswith(".dist-info")}
        assert all(name.startswith("stepvideo_") for name in packages), packages
        # The dependencies are this environment's: what is checked is the wheel, not the index.
        venv.create(work / "venv", with_pip=False, symlinks=True)
        python = work / "venv" / "bin" / "python"
        site = next((work / "venv" / "lib").glob("python*/site-packages"))
        own = [path for path in sys.path if path.endswith("site-packages")]
        subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], check=True)
        # Appended without their .pth files, so that the editable checkout stays invisible.
        (site / "dependencies.pth").write_text("\n".join(own) + "\n")
        program = PROGRAM.format(foreign=FOREIGN, root=str(ROOT))
        subprocess.run([python, "-I", "-c", program], check=True, cwd=work)
        command = [python, "-I", "-m", "stepvideo_core.cli", "run", "a red circle moves right"]
        subprocess.run([*command, "-o", "v.mp4"], check=True, cwd=work)
        assert (work / "v.mp4").stat().st_size > 0
        names = ", ".join(sorted(packages))
        sys.stdout.write(f"{wheel.name} works outside the checkout: {names}\n")


if __name__ == "__main__":
    main()
