"""What an operator is, apart from who computes it.

An `OpContract` names an operator and fixes its parameters; a `Site` is a call place in the model
with the traits that are known when the model is built; an `OpImpl` is somebody's function that
fulfils the contract at the sites it accepts. All three are data: choosing between implementations
is the business of `stepvideo_core.dispatch`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch

from stepvideo_core.ops.cost import Cost

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class Site:
    """A call place in the model, e.g. `dit.self`. Operator families add their fixed traits.

    `device` and `dtype` are filled in by the dispatch plan: the model itself knows neither.
    """

    name: str
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - immutable
    dtype: torch.dtype = torch.float32


class Binder(Protocol):
    """The one method of a dispatch plan that a composition needs."""

    def bind(self, contract: OpContract[F], site: Site) -> F:
        """The callable chosen for `contract` at `site`."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class OpContract(Generic[F]):
    """An operator: its name, its exact parameters and, for a fused one, what it decomposes into.

    `call` is the `__call__` of the Protocol that types the operator; its docstring is the
    operator's specification. `cost` takes the operator's own arguments, on any device or on none
    (meta), and counts their work. `compose` builds the operator out of `parts` for backends that
    have the parts but not the fusion.
    """

    name: str
    call: Callable[..., Any]
    cost: Callable[..., Cost]
    parts: tuple[OpContract[Any], ...] = ()
    compose: Callable[[Binder, Site], F] | None = None

    @property
    def parameters(self) -> tuple[str, ...]:
        """Parameter names in order, without `self`."""
        return tuple(inspect.signature(self.call).parameters)[1:]


def accept_any(site: Site) -> list[str]:
    """The `why_not` of an implementation without limits."""
    return []


@dataclass(frozen=True, kw_only=True, eq=False)
class OpImpl(Generic[F]):
    """One implementation of an operator.

    `why_not(site)` returns the reasons why `fn` cannot serve a site, with numbers in its
    sentences; an empty list means yes. Among the implementations of one backend that accept a
    site, the highest `rank` is chosen, then the first name.
    """

    op: OpContract[F]
    name: str
    fn: F
    rank: int = 0
    why_not: Callable[[Site], list[str]] = accept_any
