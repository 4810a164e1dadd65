"""Strict loading: a module built on the meta device takes its weights from a source.

Every tensor must be there, no tensor may be left over, every shape must agree. A tensor that
already has the wanted dtype is assigned straight from the memory map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stepvideo_core.checkpoints.layout import ComponentName
from stepvideo_core.checkpoints.sources import TensorInfo, WeightSource
from stepvideo_core.errors import CheckpointError

KeyMap = Callable[[str], "str | None"]
"""From a key in the file to the module's key; None for a tensor that is known and not needed."""

_SHOWN = 3


def _same(key: str) -> str:
    return key


def _vae_key(key: str) -> str:
    """The decoder's last convolution is stored without the wrapper that the others have."""
    prefix = "decoder.conv_out."
    if key.startswith(prefix) and not key.startswith(prefix + "conv."):
        return prefix + "conv." + key.removeprefix(prefix)
    return key


def _clip_key(key: str) -> str | None:
    """Keys come with or without `bert.`; the pooler and pre-training heads are not used."""
    key = key.removeprefix("bert.")
    if key.startswith(("pooler.", "cls.")) or key == "embeddings.position_ids":
        return None
    return f"bert.{key}"


KEY_MAPS: dict[ComponentName, KeyMap] = {
    "transformer": _same,
    "step_llm": _same,
    "vae": _vae_key,
    "clip": _clip_key,
}


def file_key(component: ComponentName, key: str) -> str:
    """The official name, in a file, of a module's key: what KEY_MAPS leads back from."""
    if component == "vae" and key.startswith("decoder.conv_out.conv."):
        return "decoder.conv_out." + key.removeprefix("decoder.conv_out.conv.")
    return key


@dataclass(frozen=True)
class Comparison:
    """How a source fits a module, by module key (missing, wrong) or file key (extra, unused)."""

    matched: dict[str, str]
    """Module key to file key."""
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    unused: tuple[str, ...]
    wrong_shape: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    """(file key, found, wanted)."""

    @property
    def fits(self) -> bool:
        return not (self.missing or self.extra or self.wrong_shape)


def compare(
    expected: Mapping[str, tuple[int, ...]], infos: Mapping[str, TensorInfo], key_map: KeyMap
) -> Comparison:
    """Compare the shapes that a module expects with those that files hold."""
    matched: dict[str, str] = {}
    extra, unused, wrong = [], [], []
    for file_key, info in infos.items():
        key = key_map(file_key)
        if key is None:
            unused.append(file_key)
        elif key not in expected or key in matched:
            extra.append(file_key)
        else:
            matched[key] = file_key
            if info.shape != expected[key]:
                wrong.append((file_key, info.shape, expected[key]))
    missing = [key for key in expected if key not in matched]
    return Comparison(matched, tuple(missing), tuple(extra), tuple(unused), tuple(wrong))


def expected_shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Key and shape of every tensor that a module's checkpoint must hold."""
    return {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}


def load_weights(
    module: nn.Module,
    source: WeightSource,
    key_map: KeyMap,
    *,
    dtype: torch.dtype,
    device: torch.device,
    on_bytes: Callable[[int], None] | None = None,
) -> None:
    """Give `module` its weights in `dtype` on `device`.

    on_bytes: called with the size on disk of each tensor as it is taken over.
    Raises CheckpointError if anything is missing, left over or of another shape.
    """
    comparison = compare(expected_shapes(module), source.infos, key_map)
    if not comparison.fits:
        raise CheckpointError(_complaint(comparison, source))
    state: dict[str, Tensor] = {}
    for key, file_key in comparison.matched.items():
        state[key] = source.read(file_key).to(device=device, dtype=dtype)
        if on_bytes is not None:
            on_bytes(source.infos[file_key].num_bytes)
    module.load_state_dict(state, strict=True, assign=True)
    module.requires_grad_(False)


def _complaint(comparison: Comparison, source: WeightSource) -> str:
    files = sorted({str(info.file) for info in source.infos.values()})
    where = files[0] if files else "an empty file"
    if len(files) > 1:
        where += f" and {len(files) - 1} more files"
    return (
        f"{where} does not fit the model that its config describes: "
        f"{'; '.join(complaints(comparison, source.infos))}. "
        "Check the config, or download the file again"
    )


def complaints(comparison: Comparison, infos: Mapping[str, TensorInfo]) -> list[str]:
    """What does not fit, one text per kind of mismatch, each with its first few tensors."""
    found = []
    if comparison.missing:
        found.append(f"{_listed(comparison.missing)} missing")
    if comparison.extra:
        shown = [f"{key} (in {infos[key].file.name})" for key in comparison.extra]
        found.append(f"{_listed(shown)} unexpected")
    if comparison.wrong_shape:
        shown = [
            f"{key} (in {infos[key].file.name}) is {list(have)} but must be {list(wanted)}"
            for key, have, wanted in comparison.wrong_shape
        ]
        found.append(f"wrong shape: {_listed(shown)}")
    return found


def _listed(items: tuple[str, ...] | list[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more


def unload(module: nn.Module) -> None:
    """Put a module back on the meta device, which frees its weights."""
    module.to("meta")
