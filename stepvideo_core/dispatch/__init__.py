"""Choosing implementations: registry, policy, plan."""

from stepvideo_core.dispatch.device import select_device
from stepvideo_core.dispatch.library import Library, find_library
from stepvideo_core.dispatch.plan import Choice, DispatchPlan
from stepvideo_core.dispatch.policy import DispatchPolicy, OpOverride
from stepvideo_core.dispatch.registry import (
    ANY_DEVICE,
    AUTO,
    COMPOSED,
    Backend,
    BackendRegistry,
    announce_emulation,
)
from stepvideo_core.dispatch.shadow import ShadowMonitor, ShadowRecord

__all__ = [
    "ANY_DEVICE",
    "AUTO",
    "COMPOSED",
    "Backend",
    "BackendRegistry",
    "Choice",
    "DispatchPlan",
    "DispatchPolicy",
    "Library",
    "OpOverride",
    "ShadowMonitor",
    "ShadowRecord",
    "announce_emulation",
    "find_library",
    "select_device",
]
