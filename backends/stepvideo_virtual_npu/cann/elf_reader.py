"""What a shared library needs and leaves undefined, read from its dynamic section.

Only the program headers are trusted, as by the dynamic loader: section headers may be stripped.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NEEDED, _DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_GNU_HASH = 1, 4, 5, 6, 0x6FFFFEF5
_SYMBOL = struct.Struct("<IBBHQQ")
_STB_GLOBAL = 1


@dataclass(frozen=True, kw_only=True)
class Linkage:
    """needed: sonames of the libraries it links; undefined: names it expects from them."""

    needed: frozenset[str]
    undefined: frozenset[str]


def read_linkage(path: Path) -> Linkage:
    """The linkage of a little-endian ELF64 shared object. Weak symbols may stay undefined."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as image:
        if image[:6] != b"\x7fELF\x02\x01":
            raise ValueError(f"{path} is no little-endian ELF64 file")
        return _Reader(image).linkage()


class _Reader:
    def __init__(self, image: mmap.mmap) -> None:
        self._image = image
        (start,) = struct.unpack_from("<Q", image, 32)
        (count,) = struct.unpack_from("<H", image, 56)
        self._segments: list[tuple[int, int, int]] = []
        self._dynamic = (0, 0)
        for index in range(count):
            kind, _, offset, address, _, size, _, _ = struct.unpack_from(
                "<IIQQQQQQ", image, start + 56 * index
            )
            if kind == _PT_LOAD:
                self._segments.append((address, offset, size))
            elif kind == _PT_DYNAMIC:
                self._dynamic = (offset, size)

    def linkage(self) -> Linkage:
        entries = list(self._entries())
        tags = dict(entries)
        strings = self._file_offset(tags[_DT_STRTAB])
        symbols = self._file_offset(tags[_DT_SYMTAB])
        needed = {self._string(strings + value) for tag, value in entries if tag == _DT_NEEDED}
        undefined = set()
        for index in range(1, self._symbols_that_may_be_undefined(tags)):
            name, info, _, section, _, _ = _SYMBOL.unpack_from(
                self._image, symbols + _SYMBOL.size * index
            )
            if section == 0 and info >> 4 == _STB_GLOBAL:
                undefined.add(self._string(strings + name))
        return Linkage(needed=frozenset(needed), undefined=frozenset(undefined))

    def _entries(self) -> Iterator[tuple[int, int]]:
        offset, size = self._dynamic
        for position in range(offset, offset + size, 16):
            tag, value = struct.unpack_from("<QQ", self._image, position)
            if tag == 0:
                return
            yield tag, value

    def _symbols_that_may_be_undefined(self, tags: dict[int, int]) -> int:
        """DT_HASH counts all symbols; in DT_GNU_HASH the undefined ones come before the first
        hashed one, whose index it stores."""
        table = _DT_HASH if _DT_HASH in tags else _DT_GNU_HASH
        return int(struct.unpack_from("<I", self._image, self._file_offset(tags[table]) + 4)[0])

    def _file_offset(self, address: int) -> int:
        for start, offset, size in self._segments:
            if start <= address < start + size:
                return address - start + offset
        raise ValueError(f"address {address:#x} lies in no segment")

    def _string(self, offset: int) -> str:
        return self._image[offset : self._image.find(b"\0", offset)].decode()
