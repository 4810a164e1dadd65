"""Which device a run uses. The only place in the core that asks torch what is plugged in."""

from __future__ import annotations

import torch

from stepvideo_core.dispatch.policy import DispatchPolicy
from stepvideo_core.dispatch.registry import ANY_DEVICE, AUTO, BackendRegistry
from stepvideo_core.errors import InvalidRequest


def select_device(
    registry: BackendRegistry, policy: DispatchPolicy, requested: str | None = None
) -> torch.device:
    """The device for a policy.

    requested: a torch device string such as `cuda:1`; None chooses the named backend's device, or
    under `auto` the accelerator at hand if a backend can use it, and the CPU otherwise.
    Raises InvalidRequest for a device that torch does not know or that is not there.
    """
    if requested is not None:
        return _parse(requested)
    if policy.backend != AUTO:
        device_type = registry.get(policy.backend).device_type
        return torch.device("cpu") if device_type == ANY_DEVICE else _parse(device_type)
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is not None:
        for backend in registry:
            if (
                backend.device_type == accelerator.type
                and backend.rank is not None
                and not registry.why_not(backend.name)
            ):
                return torch.device(accelerator.type, torch.accelerator.current_device_index())
    return torch.device("cpu")


def _parse(text: str) -> torch.device:
    try:
        device = torch.device(text)
    except RuntimeError:
        raise InvalidRequest(
            f"--device {text!r} is not a device that this torch knows; try cpu"
        ) from None
    if device.type in ("cpu", "meta"):
        return torch.device(device.type)
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    count = torch.accelerator.device_count() if accelerator is not None else 0
    if accelerator is None or accelerator.type != device.type or (device.index or 0) >= count:
        have = f"{count} {accelerator.type}" if accelerator is not None else "no accelerator"
        raise InvalidRequest(f"--device {text!r} is not here: torch sees {have}")
    return torch.device(device.type, device.index or 0)
