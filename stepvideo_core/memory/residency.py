"""Which model has its weights in memory: one at a time, or all of them."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

import torch
from torch import nn

from stepvideo_core.checkpoints.layout import CheckpointLayout, ComponentName
from stepvideo_core.checkpoints.load import KEY_MAPS, load_weights, unload

Offload = Literal["auto", "none"]
"""`auto` frees each model's weights when its stage ends; `none` keeps them for the next video."""


class Residency:
    """Loads components for the time they are used.

    The modules live on the meta device while their weights are not needed; loading assigns the
    weights, from the memory map where dtype and device allow.
    """

    def __init__(
        self,
        layout: CheckpointLayout,
        modules: Mapping[ComponentName, nn.Module],
        dtypes: Mapping[ComponentName, torch.dtype],
        device: torch.device,
        offload: Offload = "auto",
    ) -> None:
        self._layout, self._modules, self._dtypes = layout, modules, dtypes
        self._device, self._keep = device, offload == "none"
        self._loaded: set[ComponentName] = set()
        self._borrowers: Counter[ComponentName] = Counter()

    def num_bytes(self, component: ComponentName) -> int:
        """Size on disk of a component's tensors: the total of its loading progress."""
        if component in self._loaded:
            return 0
        return sum(info.num_bytes for info in self._layout.open(component).infos.values())

    def load(
        self, component: ComponentName, on_bytes: Callable[[int], None] | None = None
    ) -> nn.Module:
        """The module with its weights; a no-op if they are there already."""
        module = self._modules[component]
        if component not in self._loaded:
            load_weights(
                module,
                self._layout.open(component),
                KEY_MAPS[component],
                dtype=self._dtypes[component],
                device=self._device,
                on_bytes=on_bytes,
            )
            self._loaded.add(component)
        return module

    @contextlib.contextmanager
    def borrowed(self, component: ComponentName) -> Iterator[None]:
        """Frees the component's weights at the end of the outermost block, unless all are kept.

        Whoever makes many videos borrows a component around the loop, so that it is read once.
        """
        self._borrowers[component] += 1
        try:
            yield
        finally:
            self._borrowers[component] -= 1
            if not self._keep and not self._borrowers[component]:
                self.release(component)

    def release(self, component: ComponentName) -> None:
        """Free a component's weights now."""
        if component in self._loaded:
            unload(self._modules[component])
            self._loaded.discard(component)
            if self._device.type != "cpu":
                torch.accelerator.empty_cache()
