"""The dispatch plan: one implementation per call site, chosen before the first step, with reasons.

Model modules call `plan.bind(CONTRACT, site)` in `__init__` and keep the returned plain function.
A pipeline builds its models on the meta device, which collects every site, and freezes the plan;
nothing is decided after that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from stepvideo_core.dispatch.policy import DispatchPolicy, OpOverride
from stepvideo_core.dispatch.registry import ANY_DEVICE, AUTO, COMPOSED, Backend, BackendRegistry
from stepvideo_core.dispatch.shadow import ShadowMonitor
from stepvideo_core.errors import BackendUnavailable, InvalidRequest, NoImplementation
from stepvideo_core.ops.contract import F, OpContract, OpImpl, Site


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What the plan decided for one operator at one site.

    impl is the address `backend:name`, or `composed`; reasons say why the candidates before it
    were refused; shadow is the address that computes along, if any.
    """

    op: str
    site: Site
    impl: str
    reasons: tuple[str, ...] = ()
    shadow: str | None = None


class DispatchPlan:
    """Binds call sites to implementations for one device and dtype."""

    def __init__(
        self,
        registry: BackendRegistry,
        policy: DispatchPolicy,
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.registry = registry
        self.policy = policy
        self.device = device
        self.dtype = dtype
        self.shadow = ShadowMonitor()
        self._choices: dict[tuple[str, Site], Choice] = {}
        self._bound: dict[tuple[str, Site], Any] = {}
        self._used_overrides: set[OpOverride] = set()
        self._frozen = False
        _check_names(registry, policy)

    def bind(self, contract: OpContract[F], site: Site) -> F:
        """The implementation of `contract` for `site`, as a plain callable.

        Raises NoImplementation when nothing the policy allows accepts the site.
        """
        site = replace(site, device=self.device, dtype=self.dtype)
        key = (contract.name, site)
        if key not in self._bound:
            if self._frozen:
                raise NoImplementation(
                    f"{contract.name}@{site.name} was not in the plan when it was frozen"
                )
            fn, choice = self._choose(contract, site)
            if self.policy.shadow is not None:
                fn, choice = self._with_shadow(contract, site, fn, choice)
            self._bound[key] = fn
            self._choices[key] = choice
        return self._bound[key]

    def freeze(self) -> None:
        """End the collecting of sites; an override that met none of them is an error."""
        for override in self.policy.overrides:
            if override not in self._used_overrides:
                sites = sorted({site.name for op, site in self._choices if op == override.op})
                raise InvalidRequest(
                    f"--op {override} meets no call site; {override.op} is called at "
                    f"{', '.join(sites) or 'no site of this model'}"
                )
        self._frozen = True

    @property
    def choices(self) -> list[Choice]:
        """Every decision, in the order in which the models asked."""
        return list(self._choices.values())

    def as_json(self) -> list[dict[str, Any]]:
        """One {op, site, impl, reasons} per distinct decision (the shape of `plan --json`)."""
        rows: dict[tuple[str, str, str], dict[str, Any]] = {}
        for choice in self.choices:
            key = (choice.op, choice.site.name, choice.impl)
            row = rows.setdefault(
                key, {"op": key[0], "site": key[1], "impl": key[2], "reasons": []}
            )
            row["reasons"] += [text for text in choice.reasons if text not in row["reasons"]]
            if choice.shadow:
                row["shadow"] = choice.shadow
        return list(rows.values())

    def settings(self) -> dict[str, list[str]]:
        """What the backends that serve this plan have set in the process: name -> a line each."""
        used = {choice.impl.split(":")[0] for choice in self.choices} - {COMPOSED}
        lines = {name: self.registry.get(name).settings() for name in sorted(used)}
        return {name: settings for name, settings in lines.items() if settings}

    def _choose(self, contract: OpContract[F], site: Site) -> tuple[F, Choice]:
        override = self.policy.override_for(contract.name, site.name)
        if override is not None:
            self._used_overrides.add(override)
            return self._promised(contract, site, override)
        reasons: list[str] = []
        own, fallbacks = self._order()
        for backend in own:
            found = self._best_of(backend, contract, site, reasons)
            if found is not None:
                return found.fn, _choice(contract, site, f"{backend.name}:{found.name}", reasons)
        if contract.compose is not None and self._has_a_part(contract, own):
            return contract.compose(self, site), _choice(contract, site, COMPOSED, reasons)
        for backend in fallbacks:
            if own and not self.policy.allow_fallback:
                break
            found = self._best_of(backend, contract, site, reasons)
            if found is not None:
                return found.fn, _choice(contract, site, f"{backend.name}:{found.name}", reasons)
        raise NoImplementation(
            f"nothing implements {contract.name} at {site.name} on {site.device} in "
            f"{_dtype_name(site.dtype)}"
            + ("" if self.policy.allow_fallback else " without a fallback")
            + f": {'; '.join(reasons) or 'no backend offers it'}"
        )

    def _promised(
        self, contract: OpContract[F], site: Site, override: OpOverride
    ) -> tuple[F, Choice]:
        reasons: list[str] = []
        if override.backend == COMPOSED:
            if contract.compose is not None:
                return contract.compose(self, site), _choice(contract, site, COMPOSED, [])
            reasons.append(f"{contract.name} is not a fused operator")
        else:
            backend = self.registry.get(override.backend)
            found = self._best_of(backend, contract, site, reasons, only=override.impl)
            if found is not None:
                return found.fn, _choice(contract, site, f"{backend.name}:{found.name}", [])
        raise NoImplementation(
            f"--op {override} cannot be kept at {site.name}: {'; '.join(reasons)}; these would "
            f"do: {', '.join(self._addresses(contract, site)) or 'none'}"
        )

    def _best_of(
        self,
        backend: Backend,
        contract: OpContract[F],
        site: Site,
        reasons: list[str],
        only: str | None = None,
    ) -> OpImpl[F] | None:
        """The highest-ranked implementation of a backend that accepts a site; adds refusals."""
        missing = self.registry.why_not(backend.name)
        if missing:
            reasons.extend(f"{backend.name}: {text}" for text in missing)
            return None
        if backend.device_type not in (ANY_DEVICE, site.device.type):
            reasons.append(
                f"{backend.name}: computes on {backend.device_type}, not {site.device.type}"
            )
            return None
        offered = [
            impl
            for impl in self.registry.implementations(backend.name)
            if impl.op is contract and only in (None, impl.name)
        ]
        if not offered:
            what = f"{contract.name}:{only}" if only else contract.name
            reasons.append(f"{backend.name}: has no {what}")
        for impl in sorted(offered, key=lambda impl: (-impl.rank, impl.name)):
            refused = impl.why_not(site)
            if not refused:
                return impl
            reasons.extend(f"{backend.name}:{impl.name}: {text}" for text in refused)
        return None

    def _order(self) -> tuple[list[Backend], list[Backend]]:
        """The backends to ask first, and the fallbacks behind them."""
        fallbacks = [backend for backend in self.registry if backend.fallback]
        if self.policy.backend != AUTO:
            named = self.registry.get(self.policy.backend)
            return [named], [backend for backend in fallbacks if backend is not named]
        own = [
            backend
            for backend in self.registry
            if backend.rank is not None
            and not backend.fallback
            and backend.device_type in (ANY_DEVICE, self.device.type)
        ]
        return sorted(own, key=lambda backend: (-(backend.rank or 0), backend.name)), fallbacks

    def _has_a_part(self, contract: OpContract[Any], backends: list[Backend]) -> bool:
        """Whether composing would use any of `backends`; else the fallback's own fusion is as good.

        The fallback itself is not asked: it implements every operator.
        """
        return any(
            impl.op in contract.parts
            for backend in backends
            if not backend.fallback
            for impl in self.registry.implementations(backend.name)
        )

    def _addresses(self, contract: OpContract[Any], site: Site) -> Iterator[str]:
        for backend in self.registry:
            if backend.device_type in (ANY_DEVICE, site.device.type):
                for impl in self.registry.implementations(backend.name):
                    if impl.op is contract and not impl.why_not(site):
                        yield f"{backend.name}:{impl.name}"

    def _with_shadow(
        self, contract: OpContract[F], site: Site, fn: F, choice: Choice
    ) -> tuple[F, Choice]:
        assert self.policy.shadow is not None
        if choice.impl == COMPOSED:  # its parts are shadowed one by one
            return fn, choice
        reasons: list[str] = []
        backend = self.registry.get(self.policy.shadow)
        found = self._best_of(backend, contract, site, reasons)
        if found is None:
            return fn, replace(
                choice, reasons=(*choice.reasons, *(f"no shadow: {text}" for text in reasons))
            )
        address = f"{backend.name}:{found.name}"
        watched = self.shadow.watch(contract.name, site.name, choice.impl, fn, address, found.fn)
        return watched, replace(choice, shadow=address)


def _choice(contract: OpContract[Any], site: Site, impl: str, reasons: list[str]) -> Choice:
    return Choice(op=contract.name, site=site, impl=impl, reasons=tuple(reasons))


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _check_names(registry: BackendRegistry, policy: DispatchPolicy) -> None:
    """A backend that the user named must exist and work; auto may step over a broken one."""
    named = {override.backend for override in policy.overrides if override.backend != COMPOSED}
    if policy.backend != AUTO:
        named.add(policy.backend)
    if policy.shadow is not None:
        named.add(policy.shadow)
    for name in sorted(named):
        registry.get(name)
        reasons = registry.why_not(name)
        if reasons:
            raise BackendUnavailable(f"backend {name!r} cannot work here: {'; '.join(reasons)}")
