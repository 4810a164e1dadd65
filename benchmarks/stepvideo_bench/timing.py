"""Timing of calls: device events, a cold cache, warm-up, and implementations taking turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

Cache = Literal["cold", "warm"]

# Below this a sample of one call would be the clock's own resolution and the launch.
_SAMPLE_SECONDS = 1e-3
_MAX_CALLS_PER_SAMPLE = 200
_MAX_SETS = 64
_ASSUMED_CACHE = 256 << 20
_CPU_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def cache_bytes(device: torch.device) -> int:
    """The size of the last cache before memory; a generous guess where nobody tells."""
    if device.type == "cpu":
        sizes = [path.read_text().strip() for path in _CPU_CACHES.glob("index*/size")]
        known = [int(size[:-1]) << 10 for size in sizes if size.endswith("K")]
        return max(known, default=_ASSUMED_CACHE)
    properties = torch.get_device_module(device).get_device_properties(device)
    return int(getattr(properties, "L2_cache_size", _ASSUMED_CACHE))


def sets_for_cold_cache(num_bytes: int, device: torch.device, spare_bytes: int) -> int:
    """How many argument sets to rotate so that each has left the cache when its turn comes.

    num_bytes: of one set. spare_bytes: what the copies may take at most.
    """
    wanted = -(-2 * cache_bytes(device) // max(num_bytes, 1))
    return max(1, min(wanted, _MAX_SETS, spare_bytes // max(num_bytes, 1)))


def is_cold(num_bytes: int, num_sets: int, device: torch.device) -> bool:
    """Whether rotating this many sets really leaves each cold."""
    return num_sets * num_bytes >= 2 * cache_bytes(device)


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How long to measure in one go: `repeats` samples, fewer once a function has had `seconds`."""

    repeats: int = 20
    seconds: float = 1.0
    min_samples: int = 3


@dataclass(frozen=True)
class Timing:
    """Seconds per call of each sample."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    def quantile(self, share: float) -> float:
        """Linear between the sorted samples."""
        ordered = sorted(self.samples)
        place = share * (len(ordered) - 1)
        low = int(place)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def measure_once(
    fn: Callable[..., Any],
    argument_sets: Sequence[tuple[Any, ...]],
    device: torch.device,
    calls: int,
) -> float:
    """Seconds per call over `calls` calls in a row, each with the next set of arguments."""
    if device.type == "cpu":
        start = time.perf_counter()
        for index in range(calls):
            fn(*argument_sets[index % len(argument_sets)])
        return (time.perf_counter() - start) / calls
    module = torch.get_device_module(device)
    begin, end = module.Event(enable_timing=True), module.Event(enable_timing=True)
    begin.record()
    for index in range(calls):
        fn(*argument_sets[index % len(argument_sets)])
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3 / calls


def _calls_per_sample(
    fn: Callable[..., Any], argument_sets: Sequence[tuple[Any, ...]], device: torch.device
) -> int:
    """The calls that make a sample long enough to time; finding out is a warm-up call as well."""
    once = measure_once(fn, argument_sets, device, 1)
    return max(1, min(_MAX_CALLS_PER_SAMPLE, round(_SAMPLE_SECONDS / max(once, 1e-7))))


def interleaved(
    functions: Mapping[str, Callable[..., Any]],
    argument_sets: Sequence[tuple[Any, ...]],
    device: torch.device,
    effort: Effort,
) -> dict[str, Timing]:
    """Time functions round by round, so that a drift of the machine meets all of them alike.

    Functions that compile or tune on their first call must have had it.
    """
    calls = {name: _calls_per_sample(fn, argument_sets, device) for name, fn in functions.items()}
    samples: dict[str, list[float]] = {name: [] for name in functions}
    spent = dict.fromkeys(functions, 0.0)
    for _ in range(effort.repeats):
        for name, fn in functions.items():
            if len(samples[name]) >= effort.min_samples and spent[name] >= effort.seconds:
                continue
            seconds = measure_once(fn, argument_sets, device, calls[name])
            samples[name].append(seconds)
            spent[name] += seconds * calls[name]
    return {name: Timing(tuple(values)) for name, values in samples.items()}
