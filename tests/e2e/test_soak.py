# SPDX-License-Identifier: GPL-2.0-or-later
"""Many dumps in a row of one target under load: nothing of it grows.

SNAPUFFD_SOAK=N makes N dumps of each kind; -rP shows the figures.
"""

import os
import re
import shutil
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
from harness import cli, process, procstate
from harness.guest import GuestSpec

DUMPS = int(os.environ.get("SNAPUFFD_SOAK", 10))
#: What the first dumps touch for the first time is no leak.
WARM_UP = 2
#: Of the median of the last third over that of the first.
RSS_KIB = {"process": 256, "qemu": 4096}
TABLES_KIB = 64
UFFDS = 64  # counted by whole slabs, and other tests may have some


@dataclass(frozen=True)
class Sample:
    mappings: int
    fds: int
    threads: int
    rss_kib: int
    tables_kib: int
    #: userfaultfds of the whole host; None: the kernel does not tell.
    uffds: int | None


def _kib(status, name):
    return int(re.search(rf"^{name}:\s+(\d+) kB", status, re.M)[1])


def _uffds():
    try:
        slabs = Path("/proc/slabinfo").read_text()
    except OSError:
        return None
    match = re.search(r"^userfaultfd_ctx_cache\s+(\d+)", slabs, re.M)
    return int(match[1]) if match else None


def sample(pid):
    state = procstate.settled(pid, patience=0.5)
    status = Path(f"/proc/{pid}/status").read_text()
    return Sample(len(state.mappings), len(state.fds), len(state.threads),
                  _kib(status, "VmRSS"), _kib(status, "VmPTE"),
                  _uffds())  # fmt: skip


def growth(samples, rss_kib):
    """What grew, a line each.  A count that comes and goes is none: it has
    grown when it was never again as low as it once was high."""
    third = max(len(samples) // 3, 1)
    found = []
    for name in ("mappings", "fds", "threads"):
        values = [getattr(s, name) for s in samples]
        first, last = max(values[:third]), min(values[-third:])
        if last > first:
            found.append(f"{name}: {first}, then {last}")
    for name, limit in (("rss_kib", rss_kib), ("tables_kib", TABLES_KIB),
                        ("uffds", UFFDS)):  # fmt: skip
        values = [getattr(s, name) or 0 for s in samples]
        first, last = map(statistics.median, (values[:third], values[-third:]))
        if last - first > limit:
            found.append(f"{name}: {first}, then {last}")
    return found


def soak(pid, out, between=None):
    samples = []
    for n in range(WARM_UP + DUMPS):
        cli.run("dump", "--pid", pid, "--out", out, "--quiet").expect(cli.DONE)
        assert not procstate.traces_left(procstate.capture(pid))
        shutil.rmtree(out)
        process.assert_nothing_left(out)
        if between:
            between()
        if n >= WARM_UP:
            samples.append(sample(pid))
    for name in asdict(samples[0]):
        values = [getattr(s, name) for s in samples]
        if None not in values:
            print(f"{name}: {values[0]} to {values[-1]}, "
                  f"{min(values)} at least, {max(values)} at most")  # fmt: skip
    return samples


@pytest.mark.slow
def test_process(start, out):
    target = start("wait", "journal=2,0,2048", "registers", "timers")
    found = growth(soak(target.pid, out), RSS_KIB["process"])
    assert not found, found
    target.command("check")


@pytest.mark.slow
def test_vm(guests, out):
    guest = guests.start(GuestSpec())
    guest.wait_checks(1)
    found = growth(soak(guest.pid, out), RSS_KIB["qemu"])
    assert not found, found
    guest.wait_checks(2)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["fds", "mappings", "threads", "rss_kib"])
def test_leak_convicts(start, out, what):
    """One with each dump, made on purpose."""
    target = start("journal=1,0,256")
    samples = soak(target.pid, out, lambda: target.command(f"leak {what}"))
    found = growth(samples, RSS_KIB["process"])
    assert any(line.startswith(f"{what}: ") for line in found), found
