"""What the user asked for: `--backend`, `--op`, `--no-fallback`, `--shadow`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from stepvideo_core.dispatch.registry import AUTO
from stepvideo_core.errors import InvalidRequest
from stepvideo_core.ops import CONTRACTS

_OVERRIDE = re.compile(
    r"(?P<op>[a-z0-9_]+)(@(?P<site>[a-z0-9_.]+))?=(?P<backend>[a-z0-9_]+)(:(?P<impl>[a-z0-9_]+))?"
)


@dataclass(frozen=True, kw_only=True)
class OpOverride:
    """`OP[@SITE]=BACKEND[:IMPL]`: a promise, not a preference."""

    op: str
    site: str | None
    backend: str
    impl: str | None

    @classmethod
    def parse(cls, text: str) -> OpOverride:
        """Read one `--op`; InvalidRequest if it is malformed or names no operator."""
        match = _OVERRIDE.fullmatch(text.strip())
        if match is None:
            raise InvalidRequest(
                f"--op {text!r} is not OP[@SITE]=BACKEND[:IMPL], as in "
                "attention@dit.self=reference:sdpa"
            )
        if match["op"] not in CONTRACTS:
            raise InvalidRequest(
                f"--op {text!r}: there is no operator {match['op']!r}; "
                f"known are {', '.join(CONTRACTS)}"
            )
        return cls(op=match["op"], site=match["site"], backend=match["backend"], impl=match["impl"])

    def __str__(self) -> str:
        site = f"@{self.site}" if self.site else ""
        impl = f":{self.impl}" if self.impl else ""
        return f"{self.op}{site}={self.backend}{impl}"

    @property
    def address(self) -> str:
        return self.backend + (f":{self.impl}" if self.impl else "")


@dataclass(frozen=True, kw_only=True)
class DispatchPolicy:
    """How to choose implementations.

    backend: `auto` or a backend's name; a named one comes first, the fallback behind it.
    overrides: per operator, or per operator and site; the more specific wins.
    allow_fallback: whether the fallback backend may take what the others refuse.
    shadow: a second backend that computes every call as well; the difference is recorded.
    """

    backend: str = AUTO
    overrides: tuple[OpOverride, ...] = ()
    allow_fallback: bool = True
    shadow: str | None = None

    @classmethod
    def parse(
        cls,
        *,
        backend: str = AUTO,
        ops: Iterable[str] = (),
        allow_fallback: bool = True,
        shadow: str | None = None,
    ) -> DispatchPolicy:
        """Build a policy from command-line texts; two overrides for one place are an error."""
        overrides = tuple(OpOverride.parse(text) for text in ops)
        places: dict[tuple[str, str | None], OpOverride] = {}
        for override in overrides:
            other = places.setdefault((override.op, override.site), override)
            if other is not override:
                raise InvalidRequest(f"--op {other} and --op {override} claim the same place")
        return cls(
            backend=backend, overrides=overrides, allow_fallback=allow_fallback, shadow=shadow
        )

    def override_for(self, op: str, site: str) -> OpOverride | None:
        """The most specific override that covers an operator at a site."""
        general = None
        for override in self.overrides:
            if override.op == op:
                if override.site == site:
                    return override
                if override.site is None:
                    general = override
        return general
