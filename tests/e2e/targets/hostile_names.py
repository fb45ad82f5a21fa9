# SPDX-License-Identifier: GPL-2.0-or-later
"""A process with as much of everything as its arguments say, and evil names."""

import ctypes
import mmap
import os
import struct
import sys
import threading

EVIL = b"\x1b[2J) R 1 \n../../x"


def claim(libc, what, size, text):
    """Any memory of ours may be arguments or environment: PR_SET_MM_MAP, which
    takes all addresses of the process at once and no capability."""
    # Of other memory /proc shows nothing.
    area = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area[:] = text * (size // len(text))
    at = ctypes.addressof(ctypes.c_char.from_buffer(area))
    with open("/proc/self/stat", encoding="ascii") as file:
        stat = [0, 0, *file.read().rpartition(") ")[2].split()]
    code, stack, data = stat[25:27], stat[27], stat[44:46]
    texts = {"cmdline": stat[47:49], "environ": stat[49:51]}
    texts[what] = [at, at + size]
    libc.sbrk.restype = ctypes.c_void_p
    places = [*code, *data, stat[46], libc.sbrk(0), stack,
              *texts["cmdline"], *texts["environ"]]  # fmt: skip
    wanted = struct.pack("11QQIi", *map(int, places), 0, 0, -1)
    if libc.prctl(35, 14, wanted, ctypes.c_ulong(len(wanted)), 0):
        raise OSError(ctypes.get_errno(), "PR_SET_MM_MAP")
    return area


def main():
    kind = sys.argv[1]
    libc = ctypes.CDLL(None, use_errno=True)
    keep = []
    libc.prctl(15, EVIL, 0, 0, 0)  # PR_SET_NAME
    if kind == "maps":
        # Every other page has another protection: a mapping each.
        area = mmap.mmap(-1, 2 * 20000 * 4096)
        at = ctypes.addressof(ctypes.c_char.from_buffer(area))
        for i in range(20000):
            libc.mprotect(ctypes.c_void_p(at + 2 * i * 4096), 4096, 1)
        keep.append(area)
    elif kind == "names":
        for i in range(200):
            name = os.fsencode(sys.argv[2]) + b"/%03d " % i + EVIL.replace(
                b"/", b"_") + b"x" * 180
            fd = os.open(name, os.O_RDWR | os.O_CREAT)
            os.ftruncate(fd, 4096)
            keep.append(mmap.mmap(fd, 4096))
            os.unlink(name)
    elif kind == "threads":
        stop = threading.Event()
        threading.stack_size(65536)
        for _ in range(400):
            threading.Thread(target=stop.wait, daemon=True).start()
    elif kind == "fds":
        keep = [os.open("/dev/null", os.O_RDONLY) for _ in range(900)]
    elif kind in ("cmdline", "environ"):
        keep.append(claim(libc, kind, 32 << 20, b"a" * 63 + b"\0"))
    elif kind == "empty":
        keep.append(claim(libc, "cmdline", 32 << 20, b"\0"))
        keep.append(claim(libc, "environ", 32 << 20, b"\0"))
    print("ready", flush=True)
    sys.stdin.read()


main()
