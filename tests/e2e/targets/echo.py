# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests/guest/echo.c does in a guest, in a process: echo.py FILE."""

import ctypes
import mmap
import sys
import time

MARK = 0x6F6863652D6E6769
CELLS = 64
SPACING = 256 << 10

with open(sys.argv[1], "w+b") as file:
    file.truncate(CELLS * SPACING)
    memory = mmap.mmap(file.fileno(), 0)
words = (ctypes.c_uint64 * (len(memory) // 8)).from_buffer(memory)
step = SPACING // 8
for i in range(CELLS):
    words[i * step + 1] = i
    words[i * step] = MARK
print("ready", flush=True)
seen = 0
while True:
    now = words[(CELLS - 2) * step + 2]
    if now == seen:
        time.sleep(0)
        continue
    for i in range(1, CELLS, 2):
        words[i * step + 2] = now
    seen = now
