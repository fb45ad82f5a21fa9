# SPDX-License-Identifier: GPL-2.0-or-later
"""SIGKILL at random moments of real dumps, of what the operator started (the
front) and of the process behind it (the engine): the target never sees it.

SNAPUFFD_KILLS=N kills N fronts of process dumps, and of the rest in proportion;
-rP shows the tally.
"""

import os
import random
import shutil
import signal
import time
from dataclasses import dataclass

import pytest
from harness import cli, host, process, procstate, victim
from harness.guest import GuestSpec

KILLS = int(os.environ.get("SNAPUFFD_KILLS", 24))
#: A victim's waits can be looked at from inside only once, at its end.
KILLS_PER_VICTIM = 25
WAYS = ((), ("--hold-unmaps", "yes"), ("--no-io-uring",), ("--format", "core"))


@dataclass
class Tally:
    what: str
    killed: int = 0
    under_way: int = 0  # it had not ended by itself
    ended: int = 0  # waits of a target, with EINTR
    seconds: float = 0  # the longest time that the rest took to end

    def __str__(self):
        return (f"{self.killed} kills of the {self.what}, {self.under_way} of "
                f"them in a dump under way, {self.ended} waits ended; what was "
                f"left ended within {self.seconds:.2f} s")  # fmt: skip


def time_of_a_dump(pid, out, options=()):
    since = time.monotonic()
    cli.run("dump", "--pid", pid, "--out", out, *options).expect(cli.DONE)
    duration = time.monotonic() - since
    remove(out)
    return duration


def remove(out):
    if out.is_dir():
        cli.run("verify", out).expect(cli.DONE)
        shutil.rmtree(out)
    elif out.exists():
        assert out.read_bytes()[:4] == b"\x7fELF"
        out.unlink()


def wait_traced(dump, pid):
    """One of its threads at least is held, or was, a moment ago."""
    fd = os.open(f"/proc/{pid}/status", os.O_RDONLY)
    try:
        while dump.process.poll() is None:
            if b"TracerPid:\t0\n" not in os.pread(fd, 1024, 0):
                return
    finally:
        os.close(fd)


def kill(pid, out, whom, tally, chance, longest, options=(), traced=False):
    """Begins a dump, and ends it; when this returns nobody is left of it.
    `traced`: aims at the short times in which threads are held."""
    with cli.Running("dump", "--pid", pid, "--out", out, *options) as dump:
        doomed = dump.pid if whom == "front" else dump.engine()
        if traced:
            wait_traced(dump, pid)
            time.sleep(chance.choice([0, chance.uniform(0, 0.003)]))
        else:
            time.sleep(chance.uniform(0, longest))
        if dump.process.poll() is None:
            try:
                os.kill(doomed, signal.SIGKILL)
                tally.killed += 1
            except ProcessLookupError:
                pass
        since = time.monotonic()
        result = dump.wait()
        tally.seconds = max(tally.seconds, time.monotonic() - since)
    assert result.code in (cli.DONE, -signal.SIGKILL), result.err
    print(result.err, end="")
    if not out.exists():
        tally.under_way += 1
    remove(out)
    # In good order, or by the next dump.
    if whom == "front":
        process.assert_nothing_left(out)
    else:
        shutil.rmtree(f"{out}.partial", ignore_errors=True)


def judge_waits(target, may_end):
    """How many ended before they were to, with EINTR; the others were there
    until they were woken."""
    found = victim.rows(target.command("wake"))
    assert len(found) > 20
    ended = 0
    for name, (word, values) in found.items():
        if word == "early" and values["got"] == -4 and may_end:
            ended += 1
        elif word != "none":
            assert word == "woken" and values["got"] == values["want"], (
                f"{name}: {word} {values}"
            )
    return ended


def assert_all_wait(target, tids):
    """A thread of a wait that ends is gone."""
    ended = tids - process.tids(target.pid)
    if ended:
        judge_waits(target, may_end=False)
    assert not ended, f"threads {ended} wait no more"


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["front", "engine"])
def test_process(start, out, whom):
    """No wait ends, not even with EINTR where a stop would end it, unless it
    was the engine that was killed."""
    chance, tally = random.Random(), Tally(whom)
    left = KILLS if whom == "front" else max(KILLS // 2, 1)
    while left > 0:
        target = start("wait", "timed=3600000", "journal=2,0,1024",
                       "registers")  # fmt: skip
        longest = time_of_a_dump(target.pid, out)
        before = procstate.settled(target.pid)
        tids = process.tids(target.pid)
        for n in range(min(left, KILLS_PER_VICTIM)):
            kill(target.pid, out, whom, tally, chance, longest,
                 WAYS[n // 2 % len(WAYS)], traced=n % 2)  # fmt: skip
            process.assert_clean(target.pid)
            target.command("check")
            if whom == "front":
                assert_all_wait(target, tids)
                procstate.assert_same(before)
        left -= KILLS_PER_VICTIM
        time_of_a_dump(target.pid, out)
        procstate.assert_same(before, but="[eventpoll]")
        ended = len(tids - process.tids(target.pid))
        assert judge_waits(target, may_end=whom == "engine") <= ended
        tally.ended += ended
        target.close()
    print(tally)
    assert tally.under_way > tally.killed // 3


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["front", "engine"])
@pytest.mark.parametrize("ram", ["anon", "memfd"])
def test_vm(guests, out, whom, ram):
    """The VM runs, and its own check of its memory is clean."""
    chance, tally = random.Random(), Tally(whom)
    guest = guests.start(GuestSpec(ram=ram))
    guest.wait_checks(1)
    longest = time_of_a_dump(guest.pid, out)
    before = procstate.settled(guest.pid)
    for n in range(max(KILLS // 6, 1)):
        kill(guest.pid, out, whom, tally, chance, longest)
        guest.wait_status("running")
        procstate.assert_same(before)
        if n % 4 == 3:
            guest.wait_checks(1)
    time_of_a_dump(guest.pid, out)
    procstate.assert_same(before)
    guest.wait_checks(2)
    print(tally)
