"""Times, rates and counts as people read them."""

from __future__ import annotations

_PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def format_seconds(seconds: float) -> str:
    """`3.2 h`, `12.4 min`, `1.44 s`, `371 ms`, `12.3 µs`."""
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    if seconds >= 120:
        return f"{seconds / 60:.1f} min"
    if seconds >= 1:
        return f"{_three_digits(seconds)} s"
    if seconds >= 1e-3:
        return f"{_three_digits(seconds * 1e3)} ms"
    return f"{_three_digits(seconds * 1e6)} µs"


def format_rate(value: float) -> str:
    """A count with its prefix and without a unit: `798 T`."""
    for factor, prefix in _PREFIXES:
        if value >= factor:
            return f"{_three_digits(value / factor)} {prefix}"
    return f"{value:.3g} "


def format_bandwidth(bytes_per_second: float) -> str:
    """`3,000 GB/s`."""
    return f"{bytes_per_second / 1e9:,.{0 if bytes_per_second >= 1e11 else 1}f} GB/s"


def _three_digits(value: float) -> str:
    if value >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"
