"""The four versions that must fit together: torch, torch_npu, CANN and the driver.

All are read from package metadata and from the files that the installers leave, so that nothing
has to be imported to say why an import fails.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# torch -> the newest torch_npu for it and the CANN it is published with, newest torch first.
# Source: the release notes of TorchNPU 26.2.0; for 2.8 and 2.6, which it no longer serves, the
# tables of 26.0.0 and 7.3.0.
PAIRS: dict[str, tuple[str, str]] = {
    "2.14.0": ("2.14.0", "9.2.0"),
    "2.13.0": ("2.13.0", "9.2.0"),
    "2.12.0": ("2.12.0.post3", "9.2.0"),
    "2.11.0": ("2.11.0.post3", "9.2.0"),
    "2.10.0": ("2.10.0.post7", "9.2.0"),
    "2.9.0": ("2.9.0.post9", "9.2.0"),
    "2.8.0": ("2.8.0.post4", "9.0.0"),
    "2.7.1": ("2.7.1.post11", "9.2.0"),
    "2.6.0": ("2.6.0.post5", "8.5.0"),
}
# The same notes: TorchNPU 7.3 to 26.2 work with CANN 8.5 to 9.2.
OLDEST_CANN = (8, 5)

_CANN_FOLDERS = ("ascend-toolkit/latest", "cann/latest", "cann", "latest")
_CANN_FILES = ("*-linux/ascend_*_install.info", "compiler/version.info", "runtime/version.info")
_VERSION = re.compile(r"^\s*version\s*=\s*(?P<version>[0-9][\w.]*)", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Stack:
    """What is installed; None where nothing was found.

    cann_home: the CANN folder that `cann` was read from. sourced: whether the environment points
    to a CANN installation, which its set_env.sh does. devices: NPUs that the kernel driver offers.
    """

    torch: str
    torch_npu: str | None
    cann: str | None
    cann_home: Path | None
    sourced: bool
    driver: str | None
    devices: int

    def __str__(self) -> str:
        return (
            f"torch {self.torch}, torch_npu {self.torch_npu or 'absent'}, "
            f"CANN {self.cann or 'not found'}, driver {self.driver or 'not found'}"
        )


def read_stack(root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> Stack:
    """Look at the package metadata, at the environment and below `root`."""
    home = environ.get("ASCEND_HOME_PATH") or environ.get("ASCEND_TOOLKIT_HOME")
    ascend = root / "usr" / "local" / "Ascend"
    homes = [Path(home)] if home else []
    homes += [ascend / folder for folder in _CANN_FOLDERS]
    cann, cann_home = None, None
    for folder in homes:
        cann = _first_version(path for name in _CANN_FILES for path in sorted(folder.glob(name)))
        if cann is not None:
            cann_home = folder
            break
    return Stack(
        torch=release(_package("torch") or "absent"),
        torch_npu=_package("torch_npu"),
        cann=cann,
        cann_home=cann_home,
        sourced=bool(home),
        driver=_first_version([ascend / "driver" / "version.info"]),
        devices=sum(1 for path in root.glob("dev/davinci*") if path.name[7:].isdigit()),
    )


def release(text: str) -> str:
    """A version without its local part: 2.13.0 of 2.13.0+cpu."""
    return text.split("+")[0]


def mismatches(stack: Stack) -> list[str]:
    """Why torch and torch_npu do not fit, with the pair to install; empty if they do."""
    if stack.torch_npu is None:
        return [f"torch_npu is not installed; {advice(stack.torch)}"]
    # 2.8.0.post4 is the fifth build for torch 2.8.0; 2.10.0rc2 precedes 2.10.0.
    made_for = re.match(r"\d+\.\d+\.\d+", release(stack.torch_npu))
    if made_for is not None and made_for[0] != stack.torch:
        return [
            f"torch_npu {stack.torch_npu} is made for torch {made_for[0]} and this is torch "
            f"{stack.torch}; {advice(stack.torch)}, or pip install torch=={made_for[0]}"
        ]
    return []


def cann_remark(stack: Stack) -> list[str]:
    """What `doctor` says about a CANN that torch_npu's release is not documented with."""
    if stack.cann is None or stack.torch not in PAIRS:
        return []
    torch_npu, cann = PAIRS[stack.torch]
    if stack.torch_npu != torch_npu or _numbers(stack.cann) >= OLDEST_CANN:
        return []
    return [
        f"CANN {stack.cann} is older than what torch_npu {torch_npu} is documented with "
        f"({'.'.join(map(str, OLDEST_CANN))} at least, {cann} at best)"
    ]


def advice(torch_version: str) -> str:
    """What belongs to a torch release, as the end of a sentence."""
    if torch_version not in PAIRS:
        return (
            f"no torch_npu is known for torch {torch_version}; take one of "
            f"{', '.join(PAIRS)} with the torch_npu of the same number"
        )
    torch_npu, cann = PAIRS[torch_version]
    return (
        f"torch {torch_version} goes with torch_npu {torch_npu} and CANN {cann} "
        f"(pip install torch-npu=={torch_npu})"
    )


def _package(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _first_version(paths: Iterable[Path]) -> str | None:
    for path in paths:
        try:
            match = _VERSION.search(path.read_text(encoding="utf-8", errors="replace"))
        except OSError:
            continue
        if match is not None:
            return match["version"]
    return None


def _numbers(text: str) -> tuple[int, ...]:
    """8.3.RC1 as (8, 3): the two numbers that decide."""
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])
