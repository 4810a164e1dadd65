"""Random numbers of the virtual device: reproducible by seed and offset, as Philox's are.

The numbers themselves differ from a real NPU's, as those differ from a GPU's.
"""

from __future__ import annotations

import struct

import torch

from stepvideo_virtual_npu.device.aliasing import DEVICE_TYPE
from stepvideo_virtual_npu.errors import PolicyViolation

_STATE = struct.Struct("<qq")
# Offsets of Philox count 128-bit blocks by four; one call moves on by one block here.
_STEP = 4


def cpu_generator(generator: torch.Generator | None, device: torch.device) -> torch.Generator:
    """A CPU generator for one call, from the seed and offset of a device generator, which moves on.

    None is the device's default generator. A generator of another device is an error.
    """
    if generator is None:
        generator = torch.npu.default_generators[device.index or 0]  # type: ignore[attr-defined]
    if generator.device.type != DEVICE_TYPE:
        raise PolicyViolation(
            f"Expected a '{DEVICE_TYPE}' device type for generator but found "
            f"'{generator.device.type}'"
        )
    state = generator.get_state()
    seed, offset = _STATE.unpack(bytes(state.tolist()))
    substitute = torch.Generator()
    substitute.manual_seed((seed * 0x9E3779B97F4A7C15 + offset) % (1 << 63))
    moved = _STATE.pack(seed, offset + _STEP)
    generator.set_state(torch.tensor(list(moved), dtype=torch.uint8))
    return substitute
