"""House rules that are worth a test."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("backends", "kernels", "benchmarks", "training")
ROOTS = [ROOT / "stepvideo_core", *(ROOT / folder for folder in FOLDERS)]
MAX_LINES = 400
DEVICE_WORDS = re.compile(r"\b(cuda|npu|torch_npu|triton|flash_attn|ascend)\b", re.IGNORECASE)
# Where the core speaks of devices to the user, or asks torch which are there.
MAY_NAME_DEVICES = {"cli", "diagnosis.py", "record.py", "dispatch/device.py"}


def modules(*folders: Path) -> Iterator[Path]:
    for folder in folders:
        yield from sorted(folder.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def backend_packages() -> list[str]:
    return sorted(path.name for path in (ROOT / "backends").iterdir() if path.is_dir())


def test_modules_stay_small() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for path in modules(*ROOTS)
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES
    }
    assert long == {}


def test_the_core_names_no_backend() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in modules(ROOT / "stepvideo_core")
        for name in imports(path)
        if name.split(".")[0] in {*backend_packages(), "stepvideo_kernels"}
    ]
    assert found == []


def test_backends_do_not_know_one_another() -> None:
    packages = backend_packages()
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for package in packages
        for path in modules(ROOT / "backends" / package)
        for name in imports(path)
        if name.split(".")[0] in packages and name.split(".")[0] != package
    ]
    assert found == []


def test_kernels_know_nobody() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in modules(ROOT / "kernels")
        for name in imports(path)
        if name.startswith("stepvideo_") and not name.startswith("stepvideo_kernels")
    ]
    assert found == []


def test_models_and_operators_know_no_device() -> None:
    found = []
    for path in modules(ROOT / "stepvideo_core"):
        place = path.relative_to(ROOT / "stepvideo_core").as_posix()
        if place.split("/")[0] in MAY_NAME_DEVICES or place in MAY_NAME_DEVICES:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            text = ""
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = "" if id(node) in docstrings else node.value
            elif isinstance(node, ast.Attribute):
                text = node.attr
            elif isinstance(node, ast.Name):
                text = node.id
            if DEVICE_WORDS.search(text):
                found.append(f"{place}:{getattr(node, 'lineno', 0)}: {text}")
    assert found == []


def test_there_is_one_hook() -> None:
    source = (ROOT / "stepvideo_core" / "plugins" / "hookspecs.py").read_text(encoding="utf-8")
    functions = [node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    assert functions == ["stepvideo_register_backends"]


def test_no_top_level_folder_is_a_package() -> None:
    for name in FOLDERS:
        assert not (ROOT / name / "__init__.py").exists()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with Python 3.11")
def test_every_package_is_shipped_typed_and_checked() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    shipped = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    checked = settings["tool"]["mypy"]["files"]
    here = {"stepvideo_core"}
    for folder in FOLDERS:
        if (ROOT / folder).is_dir():
            here |= {
                f"{folder}/{path.name}"
                for path in (ROOT / folder).iterdir()
                if (path / "__init__.py").is_file()
            }
    assert here <= set(shipped), "not in the wheel"
    assert here <= set(checked), "not type-checked"
    assert [name for name in here if not (ROOT / name / "py.typed").is_file()] == []
    registered = settings["project"]["entry-points"]["stepvideo.backends"].values()
    for package in backend_packages():
        if (ROOT / "backends" / package / "plugin.py").is_file():
            assert f"{package}.plugin" in registered
