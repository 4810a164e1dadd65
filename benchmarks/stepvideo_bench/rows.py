"""One measured row of `bench ops`, and the record that holds many."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from stepvideo_core.errors import InvalidRequest

RECORD_FORMAT = 1
Status = Literal["measured", "skipped", "failed"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One implementation at one call: what was asked, what was found.

    count: calls per forward, decoder chunk or prompt. planned: what `auto` takes here. bound,
    roof_s: from the counts and the probed ceilings. ceiling_pct: roof_s over the median; above 100
    the probe or the count misses something, so such a figure is flagged and never a win. cold:
    whether the arguments had left the cache. peak_bytes: beside the arguments. oracle: what the
    errors refer to, or why there are none.
    """

    op: str
    site: str
    preset: str
    tokens: int
    shape: str
    count: int
    impl: str
    dtype: str
    device: str
    status: Status
    flops: int
    num_bytes: int
    bound: str
    roof_s: float
    planned: bool = False
    reasons: tuple[str, ...] = ()
    samples: tuple[float, ...] = ()
    median_s: float | None = None
    p20_s: float | None = None
    p80_s: float | None = None
    tflops: float | None = None
    gbs: float | None = None
    ceiling_pct: float | None = None
    above_ceiling: bool = False
    speedup: float | None = None
    max_abs_error: float | None = None
    rel_error: float | None = None
    oracle: str = ""
    peak_bytes: int | None = None
    cold: bool | None = None

    @property
    def call(self) -> tuple[str, str, str, str]:
        """What is computed, whoever does it."""
        return self.preset, self.op, self.site, self.shape

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"reasons": list(self.reasons), "samples": list(self.samples)}


@dataclass(frozen=True, kw_only=True)
class OpsRecord:
    """A run of `bench ops` with all that its figures depend on."""

    environment: dict[str, Any]
    ceilings: dict[str, Any]
    settings: dict[str, Any]
    plan: list[dict[str, Any]]
    rows: tuple[Row, ...]

    def as_json(self) -> dict[str, Any]:
        """The object of `bench ops --json`."""
        return self.header() | {"rows": [row.as_json() for row in self.rows]}

    def header(self) -> dict[str, Any]:
        """Everything but the rows."""
        return {
            "format": RECORD_FORMAT,
            "kind": "ops",
            "environment": self.environment,
            "ceilings": self.ceilings,
            "settings": self.settings,
            "plan": self.plan,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any], source: str = "the record") -> OpsRecord:
        """Read a record back; InvalidRequest if it is none."""
        try:
            rows = tuple(
                Row(**row | {"reasons": tuple(row["reasons"]), "samples": tuple(row["samples"])})
                for row in value["rows"]
            )
            return cls(
                environment=value["environment"],
                ceilings=value["ceilings"],
                settings=value["settings"],
                plan=value["plan"],
                rows=rows,
            )
        except (KeyError, TypeError) as error:
            raise InvalidRequest(
                f"{source} is no record of `stepvideo bench ops` of this version: {error}"
            ) from None


def read_any(path: Path) -> dict[str, Any]:
    """The object of a .json record, or of a .jsonl one whose first line is the header.

    Raises InvalidRequest if the file is missing or neither.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".jsonl":
            header, *rows = (json.loads(line) for line in text.splitlines() if line)
            return dict(header) | {"rows": rows}
        value = json.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path} cannot be read: {error}") from None
    except ValueError as error:
        raise InvalidRequest(f"{path} is no JSON record of a benchmark: {error}") from None
    if not isinstance(value, dict) or not isinstance(value.get("rows"), list):
        raise InvalidRequest(f"{path} is no record of a benchmark: it has no list of `rows`")
    return value
