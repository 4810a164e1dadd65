"""Amounts of memory, read from and written for people."""

from __future__ import annotations

import re

from stepvideo_core.errors import InvalidRequest

_UNITS = {"": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_UNITS |= {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}


def parse_memory(text: str) -> int:
    """Bytes from `12GiB`, `900MB` or a plain number of bytes; InvalidRequest for anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?b)?\s*", text.lower())
    if match is None or float(match[1]) == 0:
        raise InvalidRequest(f"--memory-limit {text!r} is no amount of memory; write 12GiB")
    return int(float(match[1]) * _UNITS[match[2] or ""])


def format_bytes(count: float) -> str:
    """`12 B`, `3 MiB`, `58.7 GiB`."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
