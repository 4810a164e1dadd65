"""The two guides say what the code does, and the same things."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stepvideo_ascend.attention import LIMITS
from stepvideo_ascend.selftest import KEY_COUNTS
from stepvideo_ascend.versions import PAIRS

ROOT = Path(__file__).resolve().parents[2]
GUIDES = {name: (ROOT / "docs" / name).read_text("utf-8") for name in ("ascend.md", "ascend.zh.md")}


@pytest.mark.parametrize("name", GUIDES)
def test_versions_are_those_of_the_code(name: str) -> None:
    rows = re.findall(r"^\| (\d[\w.]+) \| (\d[\w.]+) \| (\d[\w.]+) \|$", GUIDES[name], re.MULTILINE)
    assert rows == [(torch, *pair) for torch, pair in PAIRS.items()]


@pytest.mark.parametrize("name", GUIDES)
def test_limits_are_those_of_the_code(name: str) -> None:
    for implementation, limits in LIMITS.items():
        (row,) = re.findall(rf"^.*`npu:{implementation}`.*$", GUIDES[name], re.MULTILINE)
        assert limits.operator in row
        if "head_dim" in row:
            assert f"head_dim <= {limits.head_dim}" in row
    for count in KEY_COUNTS:
        assert re.search(rf"\b{count}\b", GUIDES[name])


@pytest.mark.parametrize("name", GUIDES)
def test_files_that_they_name_are_there(name: str) -> None:
    named = re.findall(r"`((?:tests|benchmarks)/[\w./]+)`", GUIDES[name])
    assert len(named) >= 6
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_both_have_the_same_commands_and_tables() -> None:
    english, chinese = (
        [line for line in guide.splitlines() if line.startswith(("|", "pip", "stepvideo", "npu"))]
        for guide in GUIDES.values()
    )
    assert len(english) == len(chinese)
    commands = [
        [line for line in guide if not line.startswith("|")] for guide in (english, chinese)
    ]
    assert commands[0] == commands[1]
