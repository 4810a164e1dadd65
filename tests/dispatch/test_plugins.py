"""The plugin seam: guarded loading, and a real backend from outside the tree."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest
import torch

from stepvideo_core.dispatch import DispatchPlan, DispatchPolicy
from stepvideo_core.ops import ATTENTION, AttentionSite
from stepvideo_core.plugins import ENTRY_POINT_GROUP, load_registry
from stepvideo_core.plugins.manager import build_registry
from stepvideo_core.testing import run_parity

ROOT = Path(__file__).resolve().parents[2]
GOOD = """
from stepvideo_core.dispatch import Backend
from stepvideo_core.plugins import hookimpl

@hookimpl
def stepvideo_register_backends(registry):
    registry.add(Backend(name="good", device_type="cpu", why_not=lambda: [], load=lambda: []))
"""
MODULES = {
    "sv_good": GOOD,
    "sv_import": "import a_library_that_is_not_there",
    "sv_misspelt": GOOD.replace("stepvideo_register_backends", "stepvideo_register_backend"),
    "sv_hookless": "x = 1",
    "sv_raises": GOOD.replace("    registry.add", '    raise ValueError("oh")\n    registry.add'),
    "sv_reserved": GOOD.replace('name="good"', 'name="auto"'),
}


@pytest.fixture
def entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    for name, source in MODULES.items():
        (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    return [EntryPoint(name, name, ENTRY_POINT_GROUP) for name in MODULES]


def test_each_plugin_fails_alone(entries: list[EntryPoint]) -> None:
    registry = build_registry(entries)
    assert registry.names == ["good"]
    assert set(registry.failures) == set(MODULES) - {"sv_good"}
    assert "ModuleNotFoundError: No module named 'a_library" in registry.failures["sv_import"]
    assert "stepvideo_register_backend" in registry.failures["sv_misspelt"]
    assert "implements no hook" in registry.failures["sv_hookless"]
    assert registry.failures["sv_raises"] == "ValueError: oh"
    assert "is not usable" in registry.failures["sv_reserved"]


def test_built_in_backends_use_the_same_door() -> None:
    names = {entry.name for entry in entry_points(group=ENTRY_POINT_GROUP)}
    assert "reference" in names
    assert load_registry().failures == {}


def test_importing_the_core_scans_nothing_and_loads_no_vendor() -> None:
    program = (
        "import sys, stepvideo_core, stepvideo_core.cli.app\n"
        "heavy = {'torch', 'transformers', 'av', 'triton', 'torch_npu', 'stepvideo_reference'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


class TestExample:
    """examples/stepvideo-numpy64, installed as a distribution of its own."""

    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        if "numpy64" not in load_registry().names:
            pytest.fail("install it with: pip install --no-deps -e examples/stepvideo-numpy64")

    def test_it_agrees_with_the_reference(self) -> None:
        """Two float64 implementations that share no code agree to rounding."""
        rows = list(run_parity(load_registry(), backends=["numpy64"], dtypes=[torch.float64]))
        ran = [row for row in rows if row.status != "skipped"]
        assert {row.op for row in ran} >= {"attention", "rms_norm", "rope_3d", "adaln_modulate"}
        assert [row.id for row in ran if row.status == "failed"] == []

    def test_it_is_selected_by_name_only(self) -> None:
        site = AttentionSite(name="dit.self", num_heads=2, num_kv_heads=2, head_dim=128)

        def chosen(policy: DispatchPolicy) -> str:
            plan = DispatchPlan(
                load_registry(), policy, device=torch.device("cpu"), dtype=torch.float32
            )
            plan.bind(ATTENTION, site)
            return plan.choices[0].impl

        assert chosen(DispatchPolicy()) == "reference:sdpa"
        assert chosen(DispatchPolicy(backend="numpy64")) == "numpy64:rowwise"
        override = DispatchPolicy.parse(ops=["attention@dit.self=numpy64"])
        assert chosen(override) == "numpy64:rowwise"
