# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes to a guest's RAM from outside, in step with tests/guest/echo.c.

    scribbler.py FILE [SIZE_MIB]

maps FILE shared, finds the echo's cells, and prints their offsets in one line
when the first rounds are through.  With `pin` as a further argument a buffer in
the mapping is registered with an io_uring.
"""

import ctypes
import mmap
import struct
import sys
import time

MARK = struct.pack("<Q", 0x6F6863652D6E6769)
CELLS = 64
PAGE = 4096


def find_cells(ram):
    cells = {}
    at = ram.find(MARK)
    while at >= 0:
        number = int.from_bytes(ram[at + 8 : at + 16], "little")
        if at % PAGE == 0 and number < CELLS:
            cells[number] = at
        at = ram.find(MARK, at + 8)
    return [cells[i] for i in range(CELLS)]


def pin(ram):
    """io_uring_setup(2), io_uring_register(2) with IORING_REGISTER_BUFFERS."""
    libc = ctypes.CDLL(None, use_errno=True)
    params = (ctypes.c_uint8 * 120)()
    ring = libc.syscall(425, 8, params)
    buffer = (ctypes.c_char * PAGE).from_buffer(ram)
    iov = struct.pack("<QQ", ctypes.addressof(buffer), PAGE)
    if ring < 0 or libc.syscall(427, ring, 0, iov, 1):
        sys.exit(f"io_uring: errno {ctypes.get_errno()}")
    return buffer


def main():
    with open(sys.argv[1], "r+b") as file:
        ram = mmap.mmap(file.fileno(), 0)
    kept = pin(ram) if "pin" in sys.argv else None
    cells = find_cells(ram)
    words = (ctypes.c_uint64 * (len(ram) // 8)).from_buffer(ram)
    at = [(cell + 16) // 8 for cell in cells]
    first = n = words[at[0]]
    while True:
        n += 1
        for i in at[::2]:
            words[i] = n
        while words[at[-1]] != n:
            time.sleep(0)
        if n == first + 20:
            print(*cells, flush=True)
    del kept


main()
