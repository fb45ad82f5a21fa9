# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine that figures are of."""

import mmap
import os
import re
import subprocess
import time
from pathlib import Path
from statistics import median

CHUNK = 4 << 20
HUGE = 2 << 20
MADV_POPULATE_WRITE = 23


def _first(pattern, path):
    match = re.search(pattern, Path(path).read_text(), re.M)
    return match[1].strip() if match else "unknown"


def output(*argv):
    try:
        done = subprocess.run(argv, capture_output=True, text=True)
    except OSError:
        return "unknown"
    return (done.stdout or done.stderr).strip()


def machine(where):
    return {
        "cpu": _first(r"^model name\s*:\s*(.*)$", "/proc/cpuinfo"),
        "cpus": os.cpu_count(),
        "memory_mib": int(_first(r"^MemTotal:\s+(\d+)", "/proc/meminfo"))
        // 1024,
        "kernel": os.uname().release,
        "qemu": output("qemu-system-x86_64", "--version").split("\n")[0],
        "thp": Path("/sys/kernel/mm/transparent_hugepage/enabled")
        .read_text().strip(),
        "file_system": output("findmnt", "-no", "FSTYPE", "-T", str(where)),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }  # fmt: skip


def first_touch_ms(mib=1024):
    """What the first touch of 2 MiB of memory takes, median and worst."""
    memory = mmap.mmap(-1, mib << 20, flags=mmap.MAP_PRIVATE
                       | mmap.MAP_ANONYMOUS)  # fmt: skip
    times = []
    for at in range(0, mib << 20, HUGE):
        start = time.monotonic()
        memory.madvise(MADV_POPULATE_WRITE, at, HUGE)
        times.append((time.monotonic() - start) * 1e3)
    memory.close()
    return [median(times), max(times)]


def disk_rate(where, mib):
    """MiB/s of plain O_DIRECT writes and an fsync, as dd does them."""
    path = Path(where) / f"snapuffd-bench-disk-{os.getpid()}"
    buffer = mmap.mmap(-1, CHUNK)
    buffer.write(os.urandom(CHUNK))
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        try:
            fd = os.open(path, flags | os.O_DIRECT, 0o600)
        except OSError:
            path.unlink(missing_ok=True)
            fd = os.open(path, flags, 0o600)
        start = time.monotonic()
        for _ in range(max(1, (mib << 20) // CHUNK)):
            os.write(fd, buffer)
        os.fsync(fd)
        spent = time.monotonic() - start
        os.close(fd)
    finally:
        path.unlink(missing_ok=True)
    return mib / spent
