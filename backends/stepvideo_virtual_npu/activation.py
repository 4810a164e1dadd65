"""Starting the virtual NPU in a process."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stepvideo_virtual_npu.environment import AUTOLOAD, check_environment
from stepvideo_virtual_npu.errors import VirtualNpuUnavailable
from stepvideo_virtual_npu.soc import DEFAULT_SOC, Soc, find_soc

if TYPE_CHECKING:
    from stepvideo_virtual_npu.cann.runtime import VirtualCann

Level = Literal["contract", "numerics", "device"]
LEVELS: tuple[Level, ...] = ("contract", "numerics", "device")


@dataclass(frozen=True, kw_only=True)
class Activation:
    """What was started."""

    soc: Soc
    level: Level


_active: list[Activation] = []
_runtimes: list[VirtualCann] = []  # the callbacks must live as long as the process


def active() -> Activation | None:
    """What runs in this process, if anything."""
    return _active[0] if _active else None


def activate(soc: str = DEFAULT_SOC, level: Level = "device") -> Activation:
    """Import the real torch_npu without CANN and put a virtual device behind it.

    Once per process, before torch_npu is imported; torch may be imported already if
    TORCH_DEVICE_BACKEND_AUTOLOAD=0 was set before. level:

    - `contract`: calls on meta and fake tensors are checked, nothing is computed;
    - `numerics`: `npu::` operators also compute on CPU tensors;
    - `device`: `npu:0` is a device in host memory that computes everything torch_npu can.

    Sets environment variables of torch_npu for this process: no autoload, no fallback to the CPU,
    no task queue. Raises VirtualNpuUnavailable with what to do.
    """
    chosen = find_soc(soc)
    if level not in LEVELS:
        raise VirtualNpuUnavailable(f"there is no level {level!r}; known are {', '.join(LEVELS)}")
    if _active:
        raise VirtualNpuUnavailable(
            f"the virtual NPU runs already in this process, as {_active[0].soc.name} at level "
            f"{_active[0].level}; another one needs another process"
        )
    check_environment()
    os.environ[AUTOLOAD] = "0"
    os.environ["TORCH_NPU_FALLBACK_CPU_DISABLE"] = "1"
    # Kernels run in the calling thread here, so nothing else may run behind its back.
    os.environ["TASK_QUEUE_ENABLE"] = "0"
    _start(chosen, level)
    # Only now, since it imports torch.
    from stepvideo_core.dispatch import announce_emulation

    started = Activation(soc=chosen, level=level)
    _active.append(started)
    announce_emulation(
        "npu", f"a virtual {chosen.runtime_name} in host memory, under the real torch_npu"
    )
    return started


def _start(soc: Soc, level: Level) -> None:
    import torch

    if torch.version.cuda is not None or torch.version.hip is not None:
        raise VirtualNpuUnavailable(
            f"torch {torch.__version__} is built for another accelerator, which torch_npu refuses; "
            "install the CPU build of the same release"
        )
    from stepvideo_virtual_npu.cann.runtime import VirtualCann

    cann = VirtualCann(soc)
    _runtimes.append(cann)
    cann.load()
    shape_functions = _import_torch_npu()

    from stepvideo_virtual_npu import operators
    from stepvideo_virtual_npu.device import collectives, executor

    operators.install_shape_functions(soc, shape_functions)
    if level != "contract":
        operators.install_cpu_kernels(soc)
    if level == "device":
        executor.install_native_kernels(soc)
        operators.install_device_kernels(soc)
        collectives.install_collectives()
    else:
        operators.install_device_refusals(level)
    # CANN tells torch_npu the default of its SoC, which the stand-in has no say in.
    torch.npu.set_compile_mode(jit_compile=soc.jit_compile)  # type: ignore[attr-defined]


def _import_torch_npu() -> dict[str, Callable[..., Any]]:
    """Import it quietly and quickly, and note its shape functions, by operator.

    Without CANN it searches the whole working directory for one, and says on stdout, which belongs
    to the program that runs, that there is none.
    """
    said = io.StringIO()
    before = Path.cwd()
    with (
        tempfile.TemporaryDirectory() as empty,
        contextlib.redirect_stdout(said),
        _noting_shape_functions() as noted,
    ):
        os.chdir(empty)
        try:
            import torch_npu  # noqa: F401
        finally:
            os.chdir(before)
    for line in said.getvalue().splitlines():
        if "ASCEND_HOME_PATH" not in line:
            sys.stderr.write(line + "\n")
    return noted


@contextlib.contextmanager
def _noting_shape_functions() -> Iterator[dict[str, Callable[..., Any]]]:
    """The functions that are registered for the Meta key of `npu::` operators meanwhile.

    The dispatcher would hand out a registered function again, but not one that calls right when
    its arguments are fake tensors.
    """
    import torch

    noted: dict[str, Callable[..., Any]] = {}
    original: Any = torch.library.Library.impl

    def impl(
        library: torch.library.Library, op: Any, fn: Any, dispatch_key: str = "", **options: Any
    ) -> Any:
        key = dispatch_key or library.dispatch_key
        if library.ns == "npu" and key == "Meta":
            name = op if isinstance(op, str) else op.name()
            noted[name.removeprefix("npu::").removesuffix(".default")] = fn
        return original(library, op, fn, dispatch_key, **options)

    torch.library.Library.impl = impl  # type: ignore[method-assign, assignment]
    try:
        yield noted
    finally:
        torch.library.Library.impl = original  # type: ignore[method-assign]
