"""Writing a shared object that exports functions, without a compiler.

Each function is one indirect jump through a slot of a table that is exported as well, so whoever
loads the object decides what the functions do. The object has no relocations and no sections:

    headers | hash | symbols | strings | code || dynamic section | slots

with `||` between the read-execute and the read-write segment.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

SLOT_TABLE = "stepvideo_virtual_npu_slots"
RETURN_ZERO = "stepvideo_virtual_npu_return_zero"

_PAGE = 0x10000  # the largest page size of either machine
_STUB_BYTES = 16
_ELF_HEADER, _PROGRAM_HEADER, _SYMBOL_BYTES = 64, 56, 24
_EM = {"x86_64": 62, "aarch64": 183}
_STT_OBJECT, _STT_FUNC = 1, 2

MACHINES = tuple(_EM)


def shared_object(soname: str, functions: Sequence[str], machine: str) -> bytes:
    """The image of a library. machine: `x86_64` or `aarch64`, as `platform.machine()` says it.

    Exports `functions`, the array SLOT_TABLE with one pointer per function in their order, and the
    function RETURN_ZERO. Slots are null until the loader of the library fills them.
    """
    exported = [RETURN_ZERO, *functions, SLOT_TABLE]
    strings, offsets = _string_table([*exported, soname])
    hash_table = _one_bucket_hash(len(exported))
    hash_at = _ELF_HEADER + 4 * _PROGRAM_HEADER
    symbols_at = _aligned(hash_at + len(hash_table), 8)
    strings_at = symbols_at + _SYMBOL_BYTES * (len(exported) + 1)
    code_at = _aligned(strings_at + len(strings), _STUB_BYTES)
    code_end = code_at + _STUB_BYTES * (len(functions) + 1)
    dynamic_at = _aligned(code_end, _PAGE)
    dynamic = b"".join(
        struct.pack("<QQ", tag, value)
        for tag, value in (
            (14, offsets[soname]),  # DT_SONAME
            (4, hash_at),  # DT_HASH
            (5, strings_at),  # DT_STRTAB
            (6, symbols_at),  # DT_SYMTAB
            (10, len(strings)),  # DT_STRSZ
            (11, _SYMBOL_BYTES),  # DT_SYMENT
            (0, 0),
        )
    )
    slots_at = dynamic_at + len(dynamic)
    end = slots_at + 8 * max(1, len(functions))

    code = _return_zero(machine)
    symbols = bytes(_SYMBOL_BYTES) + _symbol(offsets[RETURN_ZERO], _STT_FUNC, code_at, _STUB_BYTES)
    for index, name in enumerate(functions):
        here = code_at + _STUB_BYTES * (index + 1)
        code += _jump_through(machine, here, slots_at + 8 * index)
        symbols += _symbol(offsets[name], _STT_FUNC, here, _STUB_BYTES)
    symbols += _symbol(offsets[SLOT_TABLE], _STT_OBJECT, slots_at, 8 * len(functions))

    program_headers = (
        _program_header(1, 5, 0, code_end, _PAGE)  # PT_LOAD, read and execute
        + _program_header(1, 6, dynamic_at, end - dynamic_at, _PAGE)  # PT_LOAD, read and write
        + _program_header(2, 6, dynamic_at, len(dynamic), 8)  # PT_DYNAMIC
        + _program_header(0x6474E551, 6, 0, 0, 16)  # PT_GNU_STACK: no executable stack
    )
    image = bytearray(end)
    for position, part in (
        (0, _elf_header(machine) + program_headers),
        (hash_at, hash_table),
        (symbols_at, symbols),
        (strings_at, strings),
        (code_at, code),
        (dynamic_at, dynamic),
    ):
        image[position : position + len(part)] = part
    return bytes(image)


def _aligned(position: int, to: int) -> int:
    return -(-position // to) * to


def _string_table(names: Sequence[str]) -> tuple[bytes, dict[str, int]]:
    table, offsets = b"\0", {}
    for name in names:
        offsets[name] = len(table)
        table += name.encode() + b"\0"
    return table, offsets


def _one_bucket_hash(count: int) -> bytes:
    """A System V hash table whose only bucket chains all symbols: a look-up then needs no hash."""
    links = [*range(2, count + 1), 0]
    return struct.pack(f"<{count + 4}I", 1, count + 1, 1, 0, *links)


def _symbol(name: int, kind: int, address: int, size: int) -> bytes:
    global_binding, any_section = 1 << 4, 1
    return struct.pack("<IBBHQQ", name, global_binding | kind, 0, any_section, address, size)


def _program_header(kind: int, flags: int, position: int, size: int, align: int) -> bytes:
    return struct.pack("<IIQQQQQQ", kind, flags, position, position, position, size, size, align)


def _elf_header(machine: str) -> bytes:
    return struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",
        3,  # ET_DYN
        _EM[machine],
        1,
        0,
        _ELF_HEADER,
        0,
        0,
        _ELF_HEADER,
        _PROGRAM_HEADER,
        4,
        0,
        0,
        0,
    )


def _return_zero(machine: str) -> bytes:
    if machine == "aarch64":
        code = struct.pack("<II", 0xD2800000, 0xD65F03C0)  # mov x0, #0; ret
    else:
        code = b"\x48\x31\xc0\xc3"  # xor rax, rax; ret
    return code.ljust(_STUB_BYTES, b"\0")


def _jump_through(machine: str, here: int, slot: int) -> bytes:
    if machine == "aarch64":
        pages = (slot >> 12) - (here >> 12)
        adrp = 0x90000010 | (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5  # adrp x16, slot
        ldr = 0xF9400210 | ((slot & 0xFFF) >> 3) << 10  # ldr x16, [x16, slot & 0xfff]
        code = struct.pack("<III", adrp, ldr, 0xD61F0200)  # br x16
    else:
        code = b"\xff\x25" + struct.pack("<i", slot - (here + 6))  # jmp [rip + slot]
    return code.ljust(_STUB_BYTES, b"\0")
