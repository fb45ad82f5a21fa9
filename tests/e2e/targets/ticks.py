# SPDX-License-Identifier: GPL-2.0-or-later
"""Allocates in four threads; ticks every 5 ms."""

import threading
import time


def allocate():
    kept = {}
    n = 0
    while True:
        kept[n % 4096] = ["x" * (n % 500), n, {n: bytes(n % 3000)}]
        n += 1
        if n % 2000 == 0:
            time.sleep(0.01)


for _ in range(4):
    threading.Thread(target=allocate, daemon=True).start()
while True:
    print("tick", flush=True)
    time.sleep(0.005)
