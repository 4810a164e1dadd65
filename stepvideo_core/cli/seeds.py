"""Several videos of one prompt: the seeds that the options name."""

from __future__ import annotations

from stepvideo_core.errors import InvalidRequest
from stepvideo_core.request import DEFAULT_SEED


def parse_seeds(seed: int | None, seeds: str | None, num_seeds: int | None) -> list[int]:
    """The seeds of `--seed`, `--seeds 1,2,3` or `--num-seeds K`, which counts up from `--seed`."""
    if seeds is None:
        first = DEFAULT_SEED if seed is None else seed
        return [first + offset for offset in range(num_seeds or 1)]
    if seed is not None or num_seeds is not None:
        raise InvalidRequest("--seeds stands alone: leave --seed and --num-seeds out")
    try:
        found = [int(part) for part in seeds.split(",")]
    except ValueError:
        raise InvalidRequest(f"--seeds {seeds!r} is no list of integers; write 1,2,3") from None
    if len(set(found)) != len(found):
        raise InvalidRequest(f"--seeds {seeds} names a seed twice")
    return found
