"""The CANN libraries that torch_npu lacks on this machine, generated and loaded from memory.

torch_npu is linked with BIND_NOW: every library it names and every function it imports must be
there before its first instruction runs. glibc takes any loaded object of the right soname, so
anonymous memory files do, and nothing is written anywhere.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepvideo_virtual_npu.cann.elf_reader import read_linkage
from stepvideo_virtual_npu.cann.elf_writer import RETURN_ZERO, SLOT_TABLE, shared_object
from stepvideo_virtual_npu.errors import VirtualNpuUnavailable

_LOADED_BY_TORCH = ("libtorch", "libc10", "libshm")
# Names that the interpreter and the C++ runtime supply; CANN's own are plain C.
_FOREIGN_PREFIXES = ("_Z", "Py", "_Py")


@dataclass(frozen=True, kw_only=True)
class Missing:
    """What stands between this machine and `import torch_npu`."""

    libraries: tuple[str, ...]
    functions: tuple[str, ...]


def package_folder(package: str) -> Path:
    """Where an installed package lies, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise VirtualNpuUnavailable(
            f"{package} is not installed; run `make test-npu` in a checkout, or see the README of "
            "stepvideo_virtual_npu for the two packages to install"
        )
    return Path(spec.origin).parent


def find_missing() -> Missing:
    """Libraries that torch_npu's own libraries need and the loader cannot find, and the functions
    that nothing in this process supplies. torch must be imported, torch_npu must not."""
    folder = package_folder("torch_npu")
    own = sorted([*folder.glob("_C*.so"), *folder.glob("lib/lib*.so")])
    # An optional extension of torch_npu's, which it leaves out itself when libatb is not there.
    linkages = [read_linkage(path) for path in own if "plugin_atb" not in path.name]
    own_names = {path.name for path in own}
    needed = frozenset().union(*(linkage.needed for linkage in linkages))
    undefined = frozenset().union(*(linkage.undefined for linkage in linkages))
    torch_library = ctypes.CDLL(str(package_folder("torch") / "lib" / "libtorch_python.so"))
    return Missing(
        libraries=tuple(
            name
            for name in sorted(needed - own_names)
            if not name.startswith(_LOADED_BY_TORCH) and not _can_be_loaded(name)
        ),
        functions=tuple(
            name
            for name in sorted(undefined)
            if not name.startswith(_FOREIGN_PREFIXES) and not hasattr(torch_library, name)
        ),
    )


def _can_be_loaded(soname: str) -> bool:
    try:
        ctypes.CDLL(soname)
    except OSError:
        return False
    return True


class GeneratedLibrary:
    """A library that exists in this process only; every function returns 0 until it is told."""

    def __init__(self, soname: str, functions: Iterable[str] = ()) -> None:
        self.functions: Sequence[str] = sorted(set(functions))
        self._callbacks: dict[str, Any] = {}
        image = shared_object(soname, self.functions, platform.machine())
        # Stays open: the loader knows libraries by path, and a second one must not get this number.
        self._file = os.memfd_create(soname)
        os.write(self._file, image)
        self._library = ctypes.CDLL(f"/proc/self/fd/{self._file}", mode=ctypes.RTLD_GLOBAL)
        self._slots = (ctypes.c_void_p * len(self.functions)).in_dll(self._library, SLOT_TABLE)
        zero = ctypes.cast(getattr(self._library, RETURN_ZERO), ctypes.c_void_p).value
        for index in range(len(self.functions)):
            self._slots[index] = zero

    def provide(self, name: str, prototype: Any, function: Callable[..., Any]) -> None:
        """Let `function` answer calls of `name`. prototype: from `ctypes.CFUNCTYPE`."""
        callback = prototype(function)
        self._callbacks[name] = callback  # ctypes keeps no reference of its own
        self._slots[self.functions.index(name)] = ctypes.cast(callback, ctypes.c_void_p).value
