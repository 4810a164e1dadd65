"""Libraries made without a compiler: written, read back, loaded and called."""

from __future__ import annotations

import ctypes
import platform
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stepvideo_virtual_npu.cann.elf_reader import read_linkage
from stepvideo_virtual_npu.cann.elf_writer import MACHINES, SLOT_TABLE, shared_object
from stepvideo_virtual_npu.cann.memory import HostBlocks

linux = pytest.mark.skipif(
    platform.system() != "Linux" or platform.machine() not in MACHINES,
    reason="ELF libraries of these machines can be loaded on Linux only",
)
names = st.lists(
    st.text("abcdefghijklmnopqrstuvwxyzABCXYZ_019", min_size=1, max_size=40).map("f_".__add__),
    unique=True,
    max_size=150,
)


@linux
@settings(max_examples=15, deadline=None)
@given(names)
def test_a_library_is_found_and_answers(functions: list[str]) -> None:
    from stepvideo_virtual_npu.cann.libraries import GeneratedLibrary

    soname = f"libnothing{abs(hash(tuple(functions)))}.so"
    library = GeneratedLibrary(soname, functions)
    loaded = ctypes.CDLL(soname)  # by its soname, as another library's NEEDED entry would
    prototype = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_double)
    for index, name in enumerate(functions):
        function = prototype((name, loaded))
        assert function(5, 2.5) == 0
        library.provide(name, prototype, lambda a, b, index=index: int(a * b) + index)
        assert function(5, 2.5) == 12 + index
    assert not hasattr(loaded, "f_missing")


@settings(max_examples=20, deadline=None)
@given(names, st.sampled_from(MACHINES))
def test_every_function_jumps_through_its_own_slot(functions: list[str], machine: str) -> None:
    """Decodes the jumps, so that the machine at hand does not matter."""
    image = shared_object("libx.so", functions, machine)
    addresses = _symbols(image)
    table, size = addresses[SLOT_TABLE]
    assert size == 8 * len(functions)
    targets = {name: _jump_target(image, addresses[name][0], machine) for name in functions}
    assert targets == {name: table + 8 * index for index, name in enumerate(functions)}


def _symbols(image: bytes) -> dict[str, tuple[int, int]]:
    """Name -> address and size, walked through the hash table as the loader does."""
    (hash_at,) = struct.unpack_from("<Q", image, _dynamic(image) + 16 + 8)
    (strings,) = struct.unpack_from("<Q", image, _dynamic(image) + 32 + 8)
    (symbols,) = struct.unpack_from("<Q", image, _dynamic(image) + 48 + 8)
    buckets, chains, index = struct.unpack_from("<III", image, hash_at)
    assert buckets == 1
    found = {}
    while index:
        name, _, _, _, value, size = struct.unpack_from("<IBBHQQ", image, symbols + 24 * index)
        start = strings + name
        found[image[start : image.index(b"\0", start)].decode()] = (value, size)
        (index,) = struct.unpack_from("<I", image, hash_at + 12 + 4 * index)
    assert len(found) == chains - 1
    return found


def _dynamic(image: bytes) -> int:
    return int(struct.unpack_from("<Q", image, 64 + 2 * 56 + 8)[0])


def _jump_target(image: bytes, address: int, machine: str) -> int:
    if machine == "x86_64":
        assert image[address : address + 2] == b"\xff\x25"
        return address + 6 + int(struct.unpack_from("<i", image, address + 2)[0])
    adrp, ldr, branch = struct.unpack_from("<III", image, address)
    assert branch == 0xD61F0200 and adrp & 0x9F00001F == 0x90000010 and ldr >> 22 == 0x3E5
    pages = (adrp >> 29 & 3) | (adrp >> 5 & 0x7FFFF) << 2
    return (address >> 12) + pages << 12 | (ldr >> 10 & 0xFFF) << 3


@linux
def test_linkage_of_a_real_library() -> None:
    library = Path(torch.__file__).parent / "lib" / "libtorch_python.so"
    linkage = read_linkage(library)
    assert "libc.so.6" in linkage.needed
    assert "PyDict_New" in linkage.undefined
    assert "PyInit__nothing" not in linkage.undefined


def test_what_is_no_library(tmp_path: Path) -> None:
    file = tmp_path / "libtext.so"
    file.write_text("not a library at all")
    with pytest.raises(ValueError, match=r"libtext\.so is no little-endian ELF64 file"):
        read_linkage(file)


@given(st.lists(st.integers(0, 3 << 20), max_size=12))
def test_blocks_are_counted_against_the_capacity(sizes: list[int]) -> None:
    blocks = HostBlocks(8 << 20)
    held: dict[int, int] = {}
    for size in sizes:
        room = blocks.free_bytes
        address = blocks.allocate(size)
        assert (address is None) == (max(size, 1) > room)
        if address is not None:
            held[address] = max(size, 1)
            assert address % 512 == 0
            assert ctypes.string_at(address, min(size, 4)) == b"\xff" * min(size, 4)
        assert blocks.free_bytes == blocks.capacity - sum(held.values())
    for address in held:
        assert blocks.release(address)
        assert not blocks.release(address)
    assert blocks.free_bytes == blocks.capacity
