"""`bench compare`: is B slower than A, or is it the noise?

Two figures of one row are compared by the ratio of their medians with a bootstrap interval. There
is a verdict only where the whole interval lies on one side of the threshold; and the probes, which
no change of ours touches, say how much the machine itself moved between the two runs.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from stepvideo_core.errors import InvalidRequest

Verdict = Literal["slower", "faster", "same", "unclear"]

_RESAMPLES = 2000
_CONFIDENCE = 0.99
# With fewer samples a bootstrap interval is no interval.
_MIN_SAMPLES = 5
_KEYS = ("name", "op", "site", "preset", "shape", "input", "impl", "dtype", "device")


class NotComparable(InvalidRequest):
    """Two records differ in something that the figures depend on."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One row of both records. ratio: B over A, above 1 is slower, with its interval."""

    row: str
    a_s: float
    b_s: float
    ratio: float
    low: float
    high: float
    verdict: Verdict

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Report:
    """All rows that both records have; drift: how far the probes moved, as a share."""

    threshold: float
    drift: float | None
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]

    @property
    def slower(self) -> tuple[Comparison, ...]:
        return tuple(row for row in self.comparisons if row.verdict == "slower")

    def as_json(self) -> dict[str, Any]:
        """The object of `bench compare --json`."""
        return {
            "threshold": self.threshold,
            "drift": self.drift,
            "slower": len(self.slower),
            "rows": [row.as_json() for row in self.comparisons],
            "notes": list(self.notes),
        }


def parse_threshold(text: str) -> float:
    """`5%` or `0.05` as a share; InvalidRequest for anything that is not between 0 and 10."""
    number = text.strip()
    scale = 0.01 if number.endswith("%") else 1.0
    try:
        value = float(number.removesuffix("%")) * scale
    except ValueError:
        value = -1.0
    if not 0 <= value < 10:
        raise InvalidRequest(f"--threshold {text!r} is no share; write 5% or 0.05")
    return value


def median_ratio(a: Sequence[float], b: Sequence[float]) -> tuple[float, float, float]:
    """(ratio of the medians b / a, low, high): a bootstrap interval, the same for the same samples.

    Below 5 samples on either side it spans all ratios of single samples.
    """
    ratio = statistics.median(b) / statistics.median(a)
    if min(len(a), len(b)) < _MIN_SAMPLES:
        return ratio, min(b) / max(a), max(b) / min(a)
    generator = random.Random(0)
    ratios = sorted(
        statistics.median(generator.choices(b, k=len(b)))
        / statistics.median(generator.choices(a, k=len(a)))
        for _ in range(_RESAMPLES)
    )
    tail = round(_RESAMPLES * (1 - _CONFIDENCE) / 2)
    return ratio, ratios[tail], ratios[-1 - tail]


def judge(low: float, high: float, threshold: float) -> Verdict:
    """A verdict that the interval bears: wholly beyond the threshold, or wholly within it."""
    if low > 1 + threshold:
        return "slower"
    if high < 1 / (1 + threshold):
        return "faster"
    if low >= 1 / (1 + threshold) and high <= 1 + threshold:
        return "same"
    return "unclear"


def compare_records(a: dict[str, Any], b: dict[str, Any], threshold: float) -> Report:
    """Compare two JSON records of `bench ops` or `bench model`.

    Raises NotComparable if kind, machine or settings differ, or no row is in both.
    """
    _check_comparable(a, b)
    rows_a, rows_b = _by_key(a["rows"]), _by_key(b["rows"])
    common = [key for key in rows_a if key in rows_b]
    if not common:
        raise NotComparable("the two records have no measured row in common: nothing to compare")
    drift = _drift(a, b)
    comparisons = []
    for key in common:
        samples_a, samples_b = _samples(rows_a[key]), _samples(rows_b[key])
        ratio, low, high = median_ratio(samples_a, samples_b)
        comparisons.append(
            Comparison(
                row=" ".join(part for part in key if part),
                a_s=statistics.median(samples_a),
                b_s=statistics.median(samples_b),
                ratio=ratio,
                low=low,
                high=high,
                verdict=judge(low, high, max(threshold, drift or 0.0)),
            )
        )
    return Report(
        threshold=threshold,
        drift=drift,
        comparisons=tuple(comparisons),
        notes=tuple(_notes(a, b, rows_a, rows_b, drift, threshold)),
    )


def _check_comparable(a: dict[str, Any], b: dict[str, Any]) -> None:
    differences = []
    if a.get("kind") != b.get("kind"):
        differences.append(f"A is of kind {a.get('kind')}, B of kind {b.get('kind')}")
    machines = [record.get("environment", {}).get("machine") for record in (a, b)]
    if None in machines:
        raise NotComparable("a record says nothing about its machine: record it again")
    for name in machines[0]:
        first, second = machines[0][name], machines[1].get(name)
        if first != second:
            differences.append(f"{name} is {first!r} in A and {second!r} in B")
    for name in ("cache",):
        first, second = (record.get("settings", {}).get(name) for record in (a, b))
        if first != second:
            differences.append(f"{name} is {first!r} in A and {second!r} in B")
    if differences:
        raise NotComparable(
            f"the two records cannot be compared: {'; '.join(differences)}; measure both on one "
            "machine with the same settings"
        )


def _by_key(rows: Iterable[dict[str, Any]]) -> dict[tuple[str, ...], dict[str, Any]]:
    return {tuple(str(row.get(key, "")) for key in _KEYS): row for row in rows if _samples(row)}


def _samples(row: dict[str, Any]) -> list[float]:
    return list(row.get("samples") or row.get("seconds") or ())


def _drift(a: dict[str, Any], b: dict[str, Any]) -> float | None:
    """The largest change of a probe that its own interval bears; None without probes."""
    changes = []
    for name in ("gemm_samples", "copy_samples"):
        first, second = (record.get("ceilings", {}).get(name) for record in (a, b))
        if first and second:
            ratio, low, high = median_ratio(first, second)
            changes.append(0.0 if low <= 1 <= high else max(ratio, 1 / ratio) - 1)
    return max(changes) if changes else None


def _notes(
    a: dict[str, Any],
    b: dict[str, Any],
    rows_a: dict[tuple[str, ...], Any],
    rows_b: dict[tuple[str, ...], Any],
    drift: float | None,
    threshold: float,
) -> Iterable[str]:
    if drift is not None and drift > threshold:
        yield (
            f"the probes moved by {drift:.0%} between the runs, so the machine was not the same; "
            "only differences beyond that are called"
        )
    versions = [record["environment"].get("versions", {}) for record in (a, b)]
    for name in sorted(versions[0].keys() | versions[1].keys()):
        first, second = (found.get(name, "none") for found in versions)
        if first != second:
            yield f"{name}: {first} in A, {second} in B"
    plans = [_choices(record) for record in (a, b)]
    for place in sorted(plans[0].keys() & plans[1].keys()):
        if plans[0][place] != plans[1][place]:
            yield f"the plan takes {plans[0][place]} at {place} in A, {plans[1][place]} in B"
    for label, own, other in (("A", rows_a, rows_b), ("B", rows_b, rows_a)):
        only = [key for key in own if key not in other]
        if only:
            yield f"{len(only)} measured rows are in {label} only"


def _choices(record: dict[str, Any]) -> dict[str, str]:
    plans = [record.get("plan") or [], *(row.get("plan") or [] for row in record["rows"])]
    return {f"{row['op']}@{row['site']}": row["impl"] for plan in plans for row in plan}
