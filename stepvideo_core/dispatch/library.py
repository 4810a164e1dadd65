"""Optional vendor libraries: imported once, and when that fails, a sentence instead of a traceback.

A library that is missing or broken costs the implementations that need it and nothing else: its
problem becomes their `why_not`.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType

from stepvideo_core.errors import BackendUnavailable


@dataclass(frozen=True, kw_only=True)
class Library:
    """An imported module, or the sentence that says why there is none."""

    name: str
    imported: ModuleType | None = None
    problem: str | None = None

    @property
    def module(self) -> ModuleType:
        """The module; BackendUnavailable with the problem if it could not be imported."""
        if self.imported is None:
            raise BackendUnavailable(self.problem or f"{self.name} was not imported")
        return self.imported

    def why_not(self) -> list[str]:
        return [self.problem] if self.problem else []


def find_library(name: str, *, needs: tuple[str, ...], install: str) -> Library:
    """Import a module and check that it has the functions we call.

    install: what to do if it is not there, as the end of a sentence.
    """
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            return Library(name=name, problem=f"{name} is not installed; {install}")
        return Library(name=name, problem=f"{name} cannot be imported: {error}; {install}")
    # Compiled extensions fail in any way when they meet another torch: missing symbols (OSError),
    # version checks (RuntimeError), and what their authors thought of.
    except Exception as error:  # noqa: BLE001
        first_line = str(error).strip().split("\n")[0]
        return Library(
            name=name,
            problem=f"{name} is installed but broken: {type(error).__name__}: {first_line}",
        )
    missing = [function for function in needs if not callable(getattr(module, function, None))]
    if missing:
        return Library(
            name=name, problem=f"{name} is installed but has no {', '.join(missing)}; {install}"
        )
    return Library(name=name, imported=module)
