# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes to so many MiB, page after page, over and over.  Any line on stdin
asks for the longest time that went between two writes, in ms, since it was
asked for last."""

import mmap
import sys
import threading
import time

PAGE = 4096

size = int(sys.argv[1]) << 20
memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
worst = 0.0


def write_all(step):
    global worst
    last = time.monotonic()
    for at in range(0, size, PAGE):
        memory[at : at + 8] = (step + at).to_bytes(8, "little")
        now = time.monotonic()
        worst = max(worst, now - last)
        last = now


def listen():
    global worst
    for line in sys.stdin:
        print(f"gap {1000 * worst:.1f}")
        worst = 0.0
        print(f"done {line.strip()}", flush=True)


def churn():
    """Its calls are those that are held."""
    while True:
        with mmap.mmap(-1, 64 * PAGE) as block:
            block[:] = bytes(len(block))
        time.sleep(0.002)


write_all(1)
threading.Thread(target=listen, daemon=True).start()
if len(sys.argv) > 2:
    threading.Thread(target=churn, daemon=True).start()
print("ready", flush=True)
step = 1
while True:
    step += 1
    write_all(step)
