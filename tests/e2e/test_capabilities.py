# SPDX-License-Identifier: GPL-2.0-or-later
"""Somebody who is not root, with capabilities of the file and no others: the
smallest sets with which each kind of target can be dumped.  Where one is left
out, that is said before anything is touched.  And what a dump gives up."""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from harness import cli, confine, host, process, procstate
from harness.guest import GuestSpec
from harness.victim import BUSY

NOBODY = "nobody"
READ, WRITE = "cap_dac_read_search", "cap_dac_override"
PTRACE, ADMIN = "cap_sys_ptrace", "cap_sys_admin"

#: Of a victim: what it does to itself; what it takes, and what is said of each
#: that is left out.
PROCESSES = {
    "own": ("nobody", {READ: "/dev/userfaultfd", PTRACE: "CAP_SYS_PTRACE"}),
    "any": (None, {READ: "CAP_DAC_READ_SEARCH", PTRACE: "CAP_SYS_PTRACE"}),
    "any-filtered": ("filter", {
        READ: "CAP_DAC_READ_SEARCH", PTRACE: "CAP_SYS_PTRACE",
        ADMIN: "CAP_SYS_ADMIN"}),
    "own-filtered": ("nobody,no_new_privs,filter", {
        READ: "/dev/userfaultfd", PTRACE: "CAP_SYS_PTRACE",
        ADMIN: "CAP_SYS_ADMIN"}),
}  # fmt: skip

#: The same of a VM, by the user that it runs as.
VMS = {
    "own": (GuestSpec(user=NOBODY), {READ: "/dev/userfaultfd"}),
    "own-filtered": (GuestSpec(user=NOBODY, sandbox=True), {
        READ: "/dev/userfaultfd", ADMIN: "CAP_SYS_ADMIN"}),
    "any": (GuestSpec(ram="memfd"), {
        WRITE: "CAP_DAC_", PTRACE: "CAP_SYS_PTRACE"}),
}  # fmt: skip


@pytest.fixture
def somebody():
    host.require_root()
    if not shutil.which("setcap"):
        pytest.skip("setcap is not installed")
    capable = confine.Capable()
    yield capable
    capable.close()


def assert_refused(somebody, pid, sets):
    for left_out, word in sets.items():
        others = sets.keys() - {left_out}
        somebody.dump(others, pid).expect_error(cli.REFUSED, word)
        process.assert_nothing_left(somebody.out)
        somebody.run(others, "check", "--pid", pid).expect_error(
            cli.REFUSED, word
        )


@pytest.mark.parametrize("whose", PROCESSES)
def test_process(start, judge, somebody, whose):
    ways, sets = PROCESSES[whose]
    target = start(*BUSY, *([f"confine={ways}"] if ways else []))
    with process.unharmed(target):
        assert_refused(somebody, target.pid, sets)
        somebody.run(sets, "check", "--pid", target.pid).expect(cli.DONE)
        somebody.dump(sets, target.pid).expect(cli.DONE)
        judge(somebody.out / "memory.core")
    target.command("check")


@pytest.mark.parametrize("whose", VMS)
def test_vm(guests, somebody, whose):
    spec, sets = VMS[whose]
    guest = guests.start(spec)
    with procstate.unharmed(guest):
        assert_refused(somebody, guest.pid, sets)
        somebody.dump(sets, guest.pid).expect(cli.DONE)
    somebody.run([], "verify", somebody.out).expect(cli.DONE)
    if whose == "own":
        # Who may open the device needs nothing.
        shutil.rmtree(somebody.out)
        with device_for(65534):
            somebody.dump([], guest.pid).expect(cli.DONE)


@contextlib.contextmanager
def device_for(gid):
    device = Path("/dev/userfaultfd")
    before = device.stat()
    try:
        os.chown(device, before.st_uid, gid)
        device.chmod(0o640)
        yield
    finally:
        os.chown(device, before.st_uid, before.st_gid)
        device.chmod(before.st_mode & 0o7777)


# What a dump keeps while the memory is captured.


def held_by(pid):
    """Names of the capabilities that each thread could use."""
    found = {}
    for tid, status in procstate.capture(pid).threads.items():
        names = subprocess.run(
            ["capsh", f"--decode={status['CapPrm']}"],
            capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
        names = names.partition("=")[2]
        found[tid] = (status["Name"], set(names.split(",")) - {""})
    return found


KEPT = {PTRACE, WRITE, "cap_sys_nice"}
FINDS = {PTRACE, WRITE, READ}


@pytest.mark.parametrize("kind", ["vm", "process"])
def test_what_is_kept(guests, start, out, kind):
    if not shutil.which("capsh"):
        pytest.skip("capsh is not installed")
    if kind == "vm":
        target = guests.start(GuestSpec(sandbox=True))
    else:
        target = start("journal=1", "confine=filter")
    options = ["--no-io-uring", "--rate-limit", "32", "--buffer", "16M"]
    if kind == "process":
        options = ["--no-io-uring", "--retries", "0"]
    with cli.Running("dump", "--pid", target.pid, "--out", out, *options,
                     "--quiet") as dump:  # fmt: skip
        assert dump.hold_when_armed(target.pid)
        assert not any(caps for _, caps in held_by(dump.pid).values())
        engine = dump.engine()
        kept = KEPT | ({"cap_checkpoint_restore"} if kind == "process"
                       else set())  # fmt: skip
        threads = held_by(engine)
        none = [tid for tid, (_, caps) in threads.items() if not caps]
        assert len(none) >= 2, threads  # those that write
        for tid, (name, caps) in threads.items():
            assert caps in (kept, set()), (name, caps - kept)
        for keeper in process.children(engine):
            for name, caps in held_by(keeper).values():
                # It may have to find the monitor again.
                finds = name.startswith("snapuffd-keep") and kind == "vm"
                assert caps == (FINDS if finds else set()), (name, caps)
        if kind == "vm":
            assert process.children(engine)
        dump.resume()
        dump.wait().expect(cli.DONE)
