"""The records behind docs/EVIDENCE.md cover the Ascend backend as it is registered here."""

from __future__ import annotations

from pathlib import Path

from stepvideo_core.plugins import load_registry
from stepvideo_core.testing.evidence import (
    DTYPE_NAMES,
    covered,
    level_of,
    read_records,
    registered,
)

RECORDS = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "parity"


def test_records_cover_what_is_registered() -> None:
    """Mended by `make records-npu evidence`."""
    assert covered(read_records([RECORDS]), "npu") == registered(load_registry(), "npu")
    assert set(DTYPE_NAMES) == {dtype for _, _, dtype in covered(read_records([RECORDS]), "npu")}


def test_a_virtual_device_is_no_device() -> None:
    backend = load_registry().get("npu")
    assert "virtual Ascend910B2" in backend.emulation
    assert level_of(backend) == "E2"
