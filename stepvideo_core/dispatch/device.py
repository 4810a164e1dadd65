"""Which device a run uses. The only place in the core that asks torch what is plugged in.

Some device types exist for torch only once their backend has loaded its library, so backends are
asked first and torch second.
"""

from __future__ import annotations

import torch

from stepvideo_core.dispatch.policy import DispatchPolicy
from stepvideo_core.dispatch.registry import ANY_DEVICE, AUTO, BackendRegistry
from stepvideo_core.errors import BackendUnavailable, InvalidRequest


def select_device(
    registry: BackendRegistry, policy: DispatchPolicy, requested: str | None = None
) -> torch.device:
    """The device for a policy.

    requested: a torch device string such as `cuda:1` or `npu:1`; None chooses the named backend's
    device, or under `auto` the accelerator at hand if a backend can use it, and the CPU otherwise.
    Raises InvalidRequest for a device that torch does not know or that is not there, and
    BackendUnavailable if the named backend cannot work here.
    """
    if requested is not None:
        return _parse(requested, _load_backends(registry, requested.split(":")[0]))
    if policy.backend != AUTO:
        device_type = registry.get(policy.backend).device_type
        if device_type == ANY_DEVICE:
            return torch.device("cpu")
        if reasons := registry.why_not(policy.backend):
            raise BackendUnavailable(
                f"backend {policy.backend!r} cannot work here: {'; '.join(reasons)}"
            )
        return _parse(device_type, [])
    usable = {
        backend.device_type
        for backend in registry
        if backend.rank is not None
        and backend.device_type not in (ANY_DEVICE, "cpu")
        and not registry.why_not(backend.name)
    }
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is not None and accelerator.type in usable:
        return torch.device(accelerator.type, torch.accelerator.current_device_index())
    return torch.device("cpu")


def _load_backends(registry: BackendRegistry, device_type: str) -> list[str]:
    """Load what computes on a device type; why not, for those that cannot."""
    return [
        f"backend {backend.name!r}: {'; '.join(reasons)}"
        for backend in registry
        if backend.device_type == device_type and (reasons := registry.why_not(backend.name))
    ]


def _parse(text: str, problems: list[str]) -> torch.device:
    because = "".join(f"; {problem}" for problem in problems)
    try:
        device = torch.device(text)
    except RuntimeError:
        raise InvalidRequest(
            f"--device {text!r} is not a device that this torch knows{because or '; try cpu'}"
        ) from None
    if device.type in ("cpu", "meta"):
        return torch.device(device.type)
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    count = torch.accelerator.device_count() if accelerator is not None else 0
    if accelerator is None or accelerator.type != device.type or (device.index or 0) >= count:
        have = f"{count} {accelerator.type}" if accelerator is not None else "no accelerator"
        raise InvalidRequest(f"--device {text!r} is not here: torch sees {have}{because}")
    return torch.device(device.type, device.index or 0)
