"""Plans and loaded models for the model tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from stepvideo_core.checkpoints.layout import ComponentName
from stepvideo_core.checkpoints.load import KEY_MAPS, load_weights
from stepvideo_core.checkpoints.sources import SafetensorsSource
from stepvideo_core.dispatch import DispatchPlan, DispatchPolicy
from stepvideo_core.plugins import load_registry

PlanMaker = Callable[..., DispatchPlan]
Loader = Callable[..., Any]


@pytest.fixture(scope="session")
def make_plan() -> PlanMaker:
    def make(dtype: torch.dtype = torch.float32, **policy: Any) -> DispatchPlan:
        return DispatchPlan(
            load_registry(),
            DispatchPolicy.parse(**policy),
            device=torch.device("cpu"),
            dtype=dtype,
        )

    return make


@pytest.fixture(scope="session")
def load_model() -> Loader:
    """Build on the meta device, then load strictly, as the pipeline does."""

    def load(
        build: Callable[[], nn.Module],
        component: ComponentName,
        file: Path,
        dtype: torch.dtype = torch.float32,
    ) -> nn.Module:
        with torch.device("meta"):
            module = build()
        source = SafetensorsSource([file])
        device = torch.device("cpu")
        load_weights(module, source, KEY_MAPS[component], dtype=dtype, device=device)
        return module.eval()

    return load


@pytest.fixture(autouse=True)
def _no_grad() -> Any:
    with torch.inference_mode():
        yield
