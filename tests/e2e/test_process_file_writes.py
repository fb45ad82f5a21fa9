# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that are memory, and are written to by write(2) while they are mapped:
no fault tells of that.  The image does."""

import shutil

import pytest
from harness import cli, process
from harness.core import Core

SIZE = 64 << 20

#: FILE is open as `fd`; the first and the last page count up in turn.
TARGET = """
import fcntl, mmap, os, sys, tempfile, time
kind, how = sys.argv[1:]
SIZE = {size}
if kind == "tmpfs" or kind == "private":
    fd, name = tempfile.mkstemp(dir="/dev/shm")
    os.unlink(name)
else:
    fd = os.memfd_create("test", os.MFD_ALLOW_SEALING)
os.ftruncate(fd, SIZE)
for at in range(0, SIZE, 1 << 20):
    os.pwrite(fd, b"A" * (1 << 20), at)
flags = mmap.MAP_PRIVATE if kind == "private" else mmap.MAP_SHARED
memory = mmap.mmap(fd, SIZE, flags)
first, last = (memoryview(memory)[at:at + 8].cast("Q")
               for at in (0, SIZE - 4096))
if kind == "sealed":
    fcntl.fcntl(fd, 1033, 0x10)  # F_ADD_SEALS, F_SEAL_FUTURE_WRITE
else:
    os.pwrite(fd, bytes(8), 0)
    os.pwrite(fd, bytes(8), SIZE - 4096)
null = os.open("/dev/null", os.O_WRONLY)
print("ready", flush=True)
i = 0
while True:
    i += 1
    if how == "writes":
        word = i.to_bytes(8, "little")
        os.pwrite(fd, word, 0)
        os.pwrite(fd, word, SIZE - 4096)
    elif how == "maps":
        first[0] = i
        last[0] = i
        if kind != "memfd":
            os.write(null, b"x")
    elif how == "other":
        memory[1 << 20] = i & 255
        os.write(null, b"x")
    else:
        time.sleep(1)
""".replace("{size}", str(SIZE))


def start(targets, kind, how):
    return targets.start(["/usr/bin/python3", "-c", TARGET, kind, how],
                         "^ready$")  # fmt: skip


def dump(target, out, *options, **more):
    dumped = process.dump(target.pid, out, *options, **more)
    shown = cli.run("inspect", out, "--json").expect(cli.DONE).json()
    return dumped, shown["unsafe"], read_pair(dumped.core, shown)


def read_pair(core, shown):
    start = next(int(m["start"], 16) for m in shown["mappings"]
                 if int(m["end"], 16) - int(m["start"], 16) == SIZE)  # fmt: skip
    return [int.from_bytes(Core(core).read(at, 8), "little")
            for at in (start, start + SIZE - 4096)]  # fmt: skip


@pytest.mark.parametrize("kind", ["memfd", "tmpfs", "private"])
def test_write_is_told_of(targets, out, kind):
    """The core is torn, and says so."""
    target = start(targets, kind, "writes")
    n_torn = 0
    for _ in range(5):
        # Slow enough that it is torn.
        dumped, unsafe, (first, last) = dump(target, out, "--buffer", "16M",
                                             "--rate-limit", "200")  # fmt: skip
        assert len(unsafe) == 1 and "write(2)" in unsafe[0], unsafe
        assert ("may have been" in unsafe[0]) == (kind == "memfd")
        assert "UNSAFE" in dumped.err and unsafe[0] in dumped.err
        if kind == "memfd":
            assert f"process {target.pid} (python3)" in unsafe[0]
        n_torn += first - last not in (0, 1)
        shutil.rmtree(out)
    assert n_torn
    process.assert_clean(target.pid)


@pytest.mark.parametrize("kind, how", [
    ("memfd", "idle"), ("memfd", "maps"), ("tmpfs", "idle"), ("tmpfs", "maps"),
    ("private", "maps"), ("sealed", "idle"), ("sealed", "maps"),
    ("sealed", "other"),
])  # fmt: skip
def test_nothing_else_is(targets, out, kind, how):
    """What is written to the mapping is held back; who writes elsewhere, or may
    not write there, is none of it."""
    target = start(targets, kind, how)
    for _ in range(3):
        dumped, unsafe, (first, last) = dump(target, out)
        assert unsafe == [] and "UNSAFE" not in dumped.err
        assert first - last in (0, 1)
        shutil.rmtree(out)
    process.assert_clean(target.pid)


@pytest.mark.parametrize("option", ["refuse", "auto"])
def test_strictly_it_is_discarded(targets, out, option):
    target = start(targets, "tmpfs", "writes")
    with process.unharmed(target):
        dumped = process.dump(
            target.pid, out, "--writers", option, "--retries", "1",
            allow=(cli.INCONSISTENT,),
        )  # fmt: skip
    assert dumped.err.count("was written to by write(2)") == 2
    process.assert_clean(target.pid)


def test_who_writes_may_be_another(targets, out):
    """By a descriptor of the target's."""
    target = start(targets, "memfd", "idle")
    other = targets.start(
        ["/usr/bin/python3", "-c", f"""
import os
for fd in os.listdir("/proc/{target.pid}/fd"):
    path = f"/proc/{target.pid}/fd/{{fd}}"
    if os.readlink(path).startswith("/memfd:test"):
        file = os.open(path, os.O_RDWR)
print("ready", flush=True)
i = 0
while True:
    i += 1
    os.pwrite(file, i.to_bytes(8, "little"), 0)
"""], "^ready$")  # fmt: skip
    _, unsafe, _ = dump(target, out)
    assert len(unsafe) == 1 and "write(2)" in unsafe[0], unsafe
    other.close()
    shutil.rmtree(out)
    _, unsafe, _ = dump(target, out)
    assert unsafe == []
