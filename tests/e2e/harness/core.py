# SPDX-License-Identifier: GPL-2.0-or-later
"""ELF cores as a file: what is at which address.  What a core means is read by
gdb (process.py); this is for what gdb is too slow for, and for tearing cores on
purpose."""

import struct
from dataclasses import dataclass
from pathlib import Path

PT_LOAD = 1
PT_NOTE = 4
ET_CORE = 4
NT_PRSTATUS = 1
_PN_XNUM = 0xFFFF


@dataclass(frozen=True)
class Segment:
    kind: int
    flags: int
    offset: int
    addr: int
    file_len: int
    len: int


def _segments(file):
    head = file.read(64)
    assert head[:6] == b"\x7fELF\x02\x01", "no 64-bit ELF file"
    kind, machine = struct.unpack_from("<HH", head, 16)
    assert (kind, machine) == (ET_CORE, 62), "no core of x86-64"
    at, sections = struct.unpack_from("<QQ", head, 32)
    size, n = struct.unpack_from("<HH", head, 54)
    assert size == 56
    if n == _PN_XNUM:
        file.seek(sections)
        n = struct.unpack_from("<I", file.read(64), 44)[0]
    file.seek(at)
    table = file.read(n * size)
    for i in range(n):
        p = struct.unpack_from("<IIQQQQQQ", table, i * size)
        yield Segment(p[0], p[1], p[2], p[3], p[5], p[6])


class Core:
    def __init__(self, path):
        self.path = Path(path)
        with open(self.path, "rb") as file:
            self.segments = list(_segments(file))

    def notes(self):
        """(owner, type, bytes) of each."""
        with open(self.path, "rb") as file:
            for segment in self.segments:
                if segment.kind != PT_NOTE:
                    continue
                file.seek(segment.offset)
                data = file.read(segment.file_len)
                at = 0
                while at + 12 <= len(data):
                    name, size, kind = struct.unpack_from("<III", data, at)
                    at += 12
                    owner = data[at : at + name].rstrip(b"\0").decode()
                    at += (name + 3) & ~3
                    yield owner, kind, data[at : at + size]
                    at += (size + 3) & ~3

    def tids(self):
        """Of each thread's NT_PRSTATUS, in their order."""
        return [struct.unpack_from("<i", data, 32)[0]
                for owner, kind, data in self.notes()
                if (owner, kind) == ("CORE", NT_PRSTATUS)]  # fmt: skip

    def _pieces(self, addr, length):
        """(offset in the file, None for zeros; length), in order."""
        while length:
            for s in self.segments:
                if s.kind == PT_LOAD and s.addr <= addr < s.addr + s.len:
                    break
            else:
                raise LookupError(f"{self.path}: nothing at {addr:#x}")
            into = addr - s.addr
            n = min(length, s.len - into)
            if into < s.file_len:
                n = min(n, s.file_len - into)
                yield s.offset + into, n
            elif s.file_len:
                yield None, n
            else:
                raise LookupError(f"{self.path}: {addr:#x} was left out")
            addr += n
            length -= n

    def read(self, addr, length):
        found = bytearray()
        with open(self.path, "rb") as file:
            for offset, n in self._pieces(addr, length):
                if offset is None:
                    found += bytes(n)
                    continue
                file.seek(offset)
                data = file.read(n)
                assert len(data) == n, f"{self.path}: ends before {addr:#x}"
                found += data
        return bytes(found)

    def write(self, addr, data):
        """Changes the core, for what must be convicted."""
        with open(self.path, "r+b") as file:
            for offset, n in self._pieces(addr, len(data)):
                assert offset is not None
                file.seek(offset)
                file.write(data[:n])
                data = data[n:]
