# SPDX-License-Identifier: GPL-2.0-or-later
"""A process with as much of everything as its arguments say, and evil names."""

import ctypes
import mmap
import os
import sys
import threading

EVIL = b"\x1b[2J) R 1 \n../../x"


def main():
    kind = sys.argv[1]
    libc = ctypes.CDLL(None)
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
    print("ready", flush=True)
    sys.stdin.read()


main()
