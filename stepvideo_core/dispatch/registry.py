"""Backends and the implementations they bring, checked when they come in."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stepvideo_core.errors import BackendUnavailable, ContractMismatch, StepVideoError
from stepvideo_core.ops import CONTRACTS, OpImpl

ANY_DEVICE = "any"
COMPOSED = "composed"
"""Pseudo-backend of a fused operator that the plan builds from its parts."""
AUTO = "auto"

_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True, kw_only=True, eq=False)
class Backend:
    """What a plugin registers: enough to decide about a backend without importing its libraries.

    name: what `--backend` takes; lower-case letters, digits and underscores.
    device_type: torch device type it computes on, or "any".
    why_not: what is missing on this machine, as sentences; an empty list means it can work. Called
        at run time only, never at import.
    load: imports the libraries and returns the implementations; called once, and only when
        `why_not()` is empty. What only the library itself can tell, that it sees no device for
        one, `load` raises as BackendUnavailable.
    rank: order among the backends of one device type under `--backend auto`, highest first; None
        keeps a backend out of `auto`, so that it is used only when named.
    fallback: stands behind every other backend and takes what they refuse.
    describe: facts about its devices (model, memory, driver), a line each, for `stepvideo doctor`;
        called only when `why_not()` is empty.
    settings: what `load` has set in this process for its library, a line each, so that no switch
        is thrown in silence; called only after `load`.
    version, summary: for `stepvideo backends`.
    emulation: what computes instead of the real device, if anything does (an interpreter, a virtual
        device): then its numbers are evidence of a lower rung, and its times of none.
    """

    name: str
    device_type: str
    why_not: Callable[[], list[str]]
    load: Callable[[], Sequence[OpImpl[Any]]]
    rank: int | None = 0
    fallback: bool = False
    describe: Callable[[], list[str]] = list
    settings: Callable[[], list[str]] = list
    version: str = ""
    summary: str = ""
    emulation: str = ""


_emulations: dict[str, str] = {}


def announce_emulation(backend: str, by: str) -> None:
    """Say that in this process `by` computes in place of the device of a backend.

    For virtual devices, which are told apart from real ones by nothing else. Registries made from
    now on carry it as the backend's `emulation`.
    """
    _emulations[backend] = by


class BackendRegistry:
    """Collects backends and loads their implementations once, on demand."""

    def __init__(self) -> None:
        self._backends: dict[str, Backend] = {}
        self._loaded: dict[str, tuple[OpImpl[Any], ...]] = {}
        self._reasons: dict[str, list[str]] = {}
        self.failures: dict[str, str] = {}
        """Plugins that could not be imported or registered: entry point -> what happened."""

    def add(self, backend: Backend) -> None:
        """Register a backend; the method that plugins call from their hook."""
        if not _NAME.fullmatch(backend.name) or backend.name in (AUTO, COMPOSED):
            raise ContractMismatch(
                f"backend name {backend.name!r} is not usable: take lower-case letters, digits and "
                f"underscores, and neither {AUTO!r} nor {COMPOSED!r}"
            )
        if backend.name in self._backends:
            raise ContractMismatch(f"backend {backend.name!r} is registered twice")
        emulation = _emulations.get(backend.name, backend.emulation)
        self._backends[backend.name] = replace(backend, emulation=emulation)

    def __iter__(self) -> Iterator[Backend]:
        return iter(sorted(self._backends.values(), key=lambda backend: backend.name))

    @property
    def names(self) -> list[str]:
        return sorted(self._backends)

    def get(self, name: str) -> Backend:
        """The backend called `name`; BackendUnavailable if there is none, or it failed to load."""
        if name in self._backends:
            return self._backends[name]
        message = f"there is no backend {name!r}; known are {', '.join(self.names) or 'none'}"
        for entry_point, failure in self.failures.items():
            message += f"; plugin {entry_point!r} failed to load: {failure}"
        raise BackendUnavailable(message)

    def why_not(self, name: str) -> list[str]:
        """What keeps a backend from working here, broken imports included."""
        if name not in self._reasons:
            backend = self.get(name)
            reasons = backend.why_not()
            if not reasons:
                try:
                    self._loaded[name] = tuple(_checked(backend, backend.load()))
                except StepVideoError as error:
                    reasons = [str(error)]
                # A vendor library may fail in any way while it is imported; that must disable
                # this backend with a sentence and nothing else.
                except Exception as error:  # noqa: BLE001
                    reasons = [f"its libraries failed to load: {type(error).__name__}: {error}"]
            self._reasons[name] = reasons
        return self._reasons[name]

    def implementations(self, name: str) -> tuple[OpImpl[Any], ...]:
        """Everything a backend implements here; empty when `why_not(name)` has reasons."""
        return () if self.why_not(name) else self._loaded[name]


def _checked(backend: Backend, impls: Sequence[OpImpl[Any]]) -> Sequence[OpImpl[Any]]:
    seen: set[tuple[str, str]] = set()
    for impl in impls:
        address = f"{backend.name}:{impl.name}"
        if CONTRACTS.get(impl.op.name) is not impl.op:
            raise ContractMismatch(f"{address} implements {impl.op.name!r}, which is no operator")
        if not _NAME.fullmatch(impl.name):
            raise ContractMismatch(f"{address}: implementation names are lower-case identifiers")
        if (impl.op.name, impl.name) in seen:
            raise ContractMismatch(f"{address} implements {impl.op.name!r} twice")
        seen.add((impl.op.name, impl.name))
        found = tuple(inspect.signature(impl.fn).parameters)
        if found != impl.op.parameters:
            raise ContractMismatch(
                f"{address} takes ({', '.join(found)}) but the contract of {impl.op.name!r} says "
                f"({', '.join(impl.op.parameters)}); names and order must be the same"
            )
    return impls
