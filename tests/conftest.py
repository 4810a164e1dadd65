"""Fixtures that every test may want: the golden data and a small checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

_TESTS = Path(__file__).parent
# Copies of small golden sets belong to the repository; the full collection lies beside it.
_GOLDEN_FOLDERS = (_TESTS / "golden", _TESTS.parent.parent / "shared" / "golden")


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Path]:
    """`golden("dit_t2v/golden.safetensors")` is that file or folder; skips if nobody has it."""

    def find(name: str) -> Path:
        for folder in _GOLDEN_FOLDERS:
            if (folder / name).exists():
                return folder / name
        pytest.skip(f"no golden data: {name} is neither in tests/golden nor in ../shared/golden")

    return find


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained checkpoint of preset `tiny`; shared by all tests, so copy it to change it."""
    # Not above: this loads transformers, which loads torch_npu where it is installed, and tests/npu
    # must come before that.
    from stepvideo_core.checkpoints.untrained import write_untrained

    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    write_untrained(folder)
    return folder
