# SPDX-License-Identifier: GPL-2.0-or-later
"""What of a process an outsider can see, before and after a dump.

A dump must leave nothing behind: no descriptor, no mapping, no stopped or
traced thread, no page protection.  A live QEMU changes by itself a little (its
heap grows, pool threads come and go), so the comparison is by what matters.
"""

import contextlib
import os
import re
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

_MAP = re.compile(
    r"^([0-9a-f]+)-([0-9a-f]+) (\S{4}) ([0-9a-f]+) (\S+) (\d+)\s*(.*)$"
)
_UFFD_FLAGS = {"um", "uw", "ui"}
_KEPT_MASKS = ("SigBlk", "SigIgn", "SigCgt", "Seccomp", "NoNewPrivs", "CapEff")
_LARGE = 16 << 20  # guest RAM is, a heap is not


@dataclass(frozen=True)
class Mapping:
    start: int
    end: int
    perms: str
    name: str
    flags: frozenset

    def __str__(self):
        return f"{self.start:x}-{self.end:x} {self.perms} {self.name}".strip()


@dataclass(frozen=True)
class ProcState:
    pid: int
    fds: dict  # number -> link
    mappings: tuple
    threads: dict  # tid -> {field of status: value}


def _mappings(pid):
    found = []
    fields, flags = None, frozenset()
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        match = _MAP.match(line)
        if match:
            fields = match.groups()
        elif line.startswith("VmFlags:"):
            flags = frozenset(line.split()[1:])
            found.append(
                Mapping(int(fields[0], 16), int(fields[1], 16), fields[2],
                        fields[6], flags)
            )  # fmt: skip
    return tuple(found)


def _fds(pid):
    found = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[int(fd)] = os.readlink(f"/proc/{pid}/fd/{fd}")
        except FileNotFoundError:
            pass
    return found


def _threads(pid):
    found = {}
    for tid in os.listdir(f"/proc/{pid}/task"):
        try:
            text = Path(f"/proc/{pid}/task/{tid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        found[int(tid)] = {
            key: value.strip()
            for key, _, value in (
                line.partition(":") for line in text.splitlines()
            )
        }
    return found


def capture(pid):
    return ProcState(pid, _fds(pid), _mappings(pid), _threads(pid))


# Of a thread that the C library is about to start: no program can block the
# two signals that are the library's own.
_ALL_BLOCKED = "fffffffffffbfeff"


def _starting(state):
    return any(thread.get("SigBlk") == _ALL_BLOCKED
               for thread in state.threads.values())  # fmt: skip


def settled(pid, patience=5.0):
    """The state once it keeps still: a program that is just being loaded, or a
    QEMU whose monitor just lost its client, is not."""
    deadline = time.monotonic() + patience
    before = capture(pid)
    while True:
        time.sleep(0.1)
        now = capture(pid)
        still = not changes(before, now) and not _starting(now)
        if still or time.monotonic() > deadline:
            return now
        before = now


def is_alive(pid):
    """Of one that is no child of ours: a zombie is as dead as can be."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def is_registered(pid):
    """Whether a userfaultfd watches any memory of the process."""
    try:
        text = Path(f"/proc/{pid}/smaps").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return re.search(r"^VmFlags:.* u[mwi]\b", text, re.M) is not None


def child_named(pid, name):
    """Its child of that name, or None."""
    with contextlib.suppress(OSError):
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in map(int, path.read_text().split()):
                if Path(f"/proc/{child}/comm").read_text() == f"{name}\n":
                    return child
    return None


def thread_states(pid):
    """The letters of /proc/PID/task/TID/stat; "Z" alone: it has ended."""
    found = []
    for path in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            text = (path / "stat").read_text()
            found.append(text.rpartition(")")[2].split()[0])
    return found


def all_stopped(pid):
    """Whether each of its threads is stopped by a signal; an OSError when
    there is no such process, or it has ended."""
    states = thread_states(pid)
    if set(states) <= {"Z", "X"}:
        raise ProcessLookupError(pid)
    return set(states) == {"T"}


def rollup(pid):
    """KiB of the process's memory, by smaps' names: Rss, Pss, …"""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return {
        name: int(kib)
        for name, kib in re.findall(r"^(\w+):\s+(\d+) kB", text, re.M)
    }


def huge_kib(pid):
    """Memory of the process in transparent huge pages."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(
        int(kib)
        for kib in re.findall(
            r"^(?:Anon|ShmemPmd|FilePmd)\w*(?:HugePages|Mapped):\s+(\d+) kB",
            text,
            re.M,
        )
    )


def _outside(mappings, others):
    """Parts of `mappings` that none of `others` covers."""
    left = []
    for mapping in mappings:
        at = mapping.start
        for other in sorted(others, key=lambda m: m.start):
            if other.end <= at or other.start >= mapping.end:
                continue
            if other.start > at:
                break
            at = max(at, other.end)
        if at < mapping.end:
            left.append(mapping)
    return left


def _lasting(mapping):
    """Not what a heap or a thread's stack does by itself."""
    return (
        "x" in mapping.perms
        or "s" in mapping.perms
        or mapping.name.startswith("/")
        or mapping.end - mapping.start >= _LARGE
    )


def _kind(link):
    return re.sub(r":\[\d+\]$", "", link)


def traces_left(now):
    """What only a snapshotter that did not clean up leaves behind."""
    found = []
    for mapping in now.mappings:
        flags = sorted(mapping.flags & _UFFD_FLAGS)
        if flags:
            found.append(f"mapping {mapping} is registered: {' '.join(flags)}")
    for fd, link in sorted(now.fds.items()):
        if "userfaultfd" in link:
            found.append(f"descriptor {fd} is {link}")
    for tid, status in sorted(now.threads.items()):
        if status["State"][0] in "Tt":
            found.append(f"thread {tid} is in state {status['State']}")
        if status["TracerPid"] != "0":
            found.append(f"thread {tid} is traced by {status['TracerPid']}")
    return found


def changes(before, after):
    """What a dump must not change; a list of readable lines."""
    found = traces_left(after)

    new_fds = Counter(map(_kind, after.fds.values()))
    new_fds.subtract(Counter(map(_kind, before.fds.values())))
    for kind, n in sorted(new_fds.items()):
        if n:
            found.append(f"{n:+d} descriptors of {kind}")

    for perms in ("x", "s"):
        old = [m for m in before.mappings if perms in m.perms]
        new = [m for m in after.mappings if perms in m.perms]
        found += [f"new mapping {m}" for m in _outside(new, old)]
        found += [f"lost mapping {m}" for m in _outside(old, new)]
    old = [m for m in before.mappings if _lasting(m)]
    new = [m for m in after.mappings if _lasting(m)]
    for line in [f"new mapping {m}" for m in _outside(
                     [m for m in new if m.name.startswith("/")], old)] + [
                 f"lost mapping {m}" for m in _outside(
                     old, after.mappings)]:  # fmt: skip
        if line not in found:
            found.append(line)

    for tid in sorted(before.threads.keys() & after.threads.keys()):
        for mask in _KEPT_MASKS:
            was, now = before.threads[tid][mask], after.threads[tid][mask]
            if was != now:
                found.append(f"thread {tid}: {mask} was {was}, is {now}")
    if before.pid not in after.threads:
        found.append("the main thread is gone")
    return found


def assert_same(before, patience=3.0, but=None):
    """The process is as it was, `but` for lines that hold that text.  QEMU
    needs a moment to see that a client of its monitor has gone, hence the
    patience."""
    deadline = time.monotonic() + patience
    while True:
        try:
            found = [
                line for line in changes(before, capture(before.pid))
                if not but or but not in line
            ]  # fmt: skip
        except (FileNotFoundError, ProcessLookupError):
            found = ["it is gone"]
        if not found or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    assert not found, f"process {before.pid} was changed: " + "; ".join(found)


@contextlib.contextmanager
def unharmed(guest):
    """After the block the guest is as it was before, and its memory whole."""
    before = settled(guest.pid)
    yield
    assert_same(before)
    guest.wait_checks(1)
    assert guest.status() == "running"
