# SPDX-License-Identifier: GPL-2.0-or-later
"""Targets that defend themselves against intruders: dumped, they are none the
worse for it; or else they are refused before they are touched."""

import contextlib
import os
import resource
import shutil
import subprocess
from pathlib import Path

import pytest
from harness import cli, confine, host, process, procstate
from harness.guest import GuestSpec, assert_same_instant
from harness.process import assert_nothing_left
from harness.victim import BUSY

#: How the victim starts, and what it does to itself then.
CONFINED = {
    "filter": ((), "filter"),
    "strict": ((), "strict"),
    "nobody": ((), "nobody"),
    "undumpable": ((), "undumpable"),
    "three-files-left": ((), "nobody,files:3"),
    "namespaces": (confine.PID_NAMESPACE, "no_new_privs"),
    "read-only": (confine.READ_ONLY, "no_new_privs"),
    "nobody-with-all": (
        confine.READ_ONLY, "nobody,no_new_privs,undumpable,files:3,filter"),
    "namespaces-with-all": (
        (*confine.PID_NAMESPACE, *confine.READ_ONLY),
        "no_new_privs,undumpable,files:3,filter"),
}  # fmt: skip


@pytest.fixture(scope="module")
def denied(tmp_path_factory):
    return confine.build_denied(tmp_path_factory.mktemp("denied"))


@pytest.fixture
def launch(targets, victim_exe):
    """A victim that is started by `prefix`."""

    def launch(prefix, *words):
        target = targets.start([*prefix, victim_exe, *words], "^ready$")
        if prefix[: len(confine.PID_NAMESPACE)] == confine.PID_NAMESPACE:
            target.pid, = process.children(target.pid)
        return target

    return launch


@pytest.mark.parametrize("how", CONFINED)
def test_process(launch, judge, out, how):
    prefix, ways = CONFINED[how]
    if prefix:
        confine.require_namespaces()
    target = launch(prefix, *BUSY, f"confine={ways}")
    with process.unharmed(target):
        judge(process.dump(target.pid, out).core)
    if how != "strict":
        target.command("check")
        target.command("timers")


def woken(pid):
    """How often each thread that sleeps has come to run."""
    return {
        tid: status["voluntary_ctxt_switches"]
        for tid, status in procstate.capture(pid).threads.items()
        if status["State"][0] in "SD" and tid == pid
    }


def refuse(pid, out, *words, prefix=()):
    """One line that has all the words, of `dump` and of `check`; nobody was
    even woken."""
    before = woken(pid)
    dump = cli.run("dump", "--pid", pid, "--out", out, prefix=prefix)
    check = cli.run("check", "--pid", pid, prefix=prefix)
    assert woken(pid) == before
    assert_nothing_left(out)
    dump.expect_error(cli.REFUSED)
    check.expect_error(cli.REFUSED)
    for word in words:
        assert word in dump.err, dump.err
    assert check.err == dump.err


@contextlib.contextmanager
def lasting(target):
    """It is as it was, and can be dumped once nothing is in the way."""
    with process.unharmed(target):
        yield
    target.command("check")


@pytest.mark.parametrize("n", [0, 1, 2])
def test_no_descriptor_is_free(start, out, n):
    target = start("journal=1", f"confine=nobody,files:{n}")
    with lasting(target):
        refuse(target.pid, out, f"has {n} descriptors free", "3 are needed",
               "prlimit --nofile")  # fmt: skip


def test_one_descriptor_is_enough_for_who_may(start, judge, out):
    """Root calls userfaultfd(2) itself."""
    target = start(*BUSY)
    limit = resource.prlimit(target.pid, resource.RLIMIT_NOFILE)
    n = len(os.listdir(f"/proc/{target.pid}/fd"))
    with lasting(target):
        resource.prlimit(target.pid, resource.RLIMIT_NOFILE, (n, limit[1]))
        refuse(target.pid, out, "has 0 descriptors free", "1 ")
        resource.prlimit(target.pid, resource.RLIMIT_NOFILE, (n + 1, limit[1]))
        judge(process.dump(target.pid, out).core)
        # Above what it is now, but one below is free.
        resource.prlimit(target.pid, resource.RLIMIT_NOFILE, limit)


@pytest.mark.parametrize("which", ["main", "other"])
def test_traced(start, out, which):
    target = start("journal=1", "timers")
    others = process.tids(target.pid) - {target.pid}
    tid = target.pid if which == "main" else min(others)
    name = Path(f"/proc/{os.getpid()}/comm").read_text().strip()
    with lasting(target):
        with confine.traced(tid):
            refuse(target.pid, out, f"traced by process {os.getpid()} ({name})",
                   "" if which == "main" else f"thread {tid} ")  # fmt: skip


# Seccomp filters that cannot be suspended.


def test_filter_without_cap_sys_admin(start, out):
    target = start("journal=1", "confine=filter")
    with lasting(target):
        refuse(target.pid, out, "seccomp filter", "CAP_SYS_ADMIN",
               prefix=confine.without("sys_admin"))  # fmt: skip


def test_filter_of_our_own(start, out, denied):
    target = start("journal=1", "confine=filter")
    with lasting(target):
        refuse(target.pid, out, "seccomp filter", "one itself",
               prefix=(denied, "-n"))  # fmt: skip


def test_unfiltered_target_from_a_filter(start, judge, out, denied):
    """Nothing is to be suspended, nothing is in the way."""
    target = start(*BUSY)
    with lasting(target):
        cli.run("dump", "--pid", target.pid, "--out", out,
                prefix=(denied, "-n")).expect(cli.DONE)  # fmt: skip
        judge(out / "memory.core")


# Threads that no signal wakes.


def state(pid, tid):
    return procstate.capture(pid).threads[tid]["State"][0]


def thread_of(target, name):
    """It may just begin."""
    found = []

    def look():
        found[:] = [
            int(path.name)
            for path in Path(f"/proc/{target.pid}/task").iterdir()
            if (path / "comm").read_text().strip() == name
        ]
        return found

    host.wait_for(look)
    return found[0]


def test_uninterruptible_sleep_is_waited_for(start, judge, out):
    target = start(*BUSY, "vfork=1200")
    tid = thread_of(target, "vfork")
    with lasting(target):
        asleep = state(target.pid, tid) == "D"
        judge(process.dump(target.pid, out).core)
        target.wait_line("^vfork is over$")
    assert asleep


def test_uninterruptible_sleep_without_end(start, out):
    target = start("journal=1", "vfork=60000")
    tid = thread_of(target, "vfork")
    wchan = Path(f"/proc/{target.pid}/task/{tid}/wchan")
    host.wait_for(lambda: state(target.pid, tid) == "D")
    host.wait_for(lambda: wchan.read_text() != "0")
    with lasting(target):
        refuse(target.pid, out, f"thread {tid} ",
               f"(state D, in {wchan.read_text()})")  # fmt: skip


def test_frozen_file_system(start, judge, tmp_path, out):
    if not shutil.which("fsfreeze"):
        pytest.skip("fsfreeze is not installed")
    disk = tmp_path / "disk"
    with open(disk, "wb") as file:
        file.truncate(32 << 20)
    with host.ext4(disk) as place:
        target = start(*BUSY, f"write={place}")
        tid = thread_of(target, "writes")
        subprocess.run(["fsfreeze", "-f", place], check=True)
        try:
            host.wait_for(lambda: state(target.pid, tid) == "D")
            before = procstate.capture(target.pid)
            refuse(target.pid, out, f"thread {tid} ", "(state D, in ")
            procstate.assert_same(before)
        finally:
            subprocess.run(["fsfreeze", "-u", place], check=True)
        # None came to less than was asked for: it would have died of that.
        done = target.command("write")
        host.wait_for(lambda: target.command("write") != done)
        judge(process.dump(target.pid, out).core)
        target.command("check")
        target.close()


# VMs

SANDBOX = GuestSpec(sandbox=True)
VMS = {
    "sandbox": SANDBOX.replace(prefix=confine.NO_NEW_PRIVS),
    # It becomes another user itself, which the sandbox must let it.
    "runas": GuestSpec(extra=(
        "-runas", "nobody", "-sandbox", "on,obsolete=deny,spawn=deny,"
        "elevateprivileges=allow,resourcecontrol=deny")),
    "namespaces": SANDBOX.replace(prefix=confine.NAMESPACES, ram="memfd"),
    # And another filter, which kills (targets/denied.c).
    "all": SANDBOX.replace(prefix=confine.NO_NEW_PRIVS, user="nobody"),
}


@pytest.mark.parametrize("how", VMS)
def test_vm(guests, denied, out, how):
    spec = VMS[how]
    if how == "namespaces":
        confine.require_namespaces()
    if how == "all":
        spec = spec.replace(prefix=(denied, *spec.prefix))
    source = guests.start(spec)
    with procstate.unharmed(source):
        cli.run("dump", "--pid", source.pid, "--out", out).expect(cli.DONE)
    cli.run("verify", out).expect(cli.DONE)
    command = f"{cli.program()} convert {out} --to qemu --out -"
    plain = GuestSpec()
    restored = guests.restore(
        source, f"exec:{command}", spec=plain.replace(ram=spec.ram)
    )
    assert_same_instant(source, restored, checks=1)
    if how == "sandbox":
        refuse_vm(source, out)


def refuse_vm(source, out):
    """What is in the way of one, while it is."""
    shutil.rmtree(out)
    limit = resource.prlimit(source.pid, resource.RLIMIT_NOFILE)
    with procstate.unharmed(source):
        with confine.traced(source.pid):
            refuse_running(source, out, f"traced by process {os.getpid()} (")
        refuse_running(source, out, "seccomp filter", "CAP_SYS_ADMIN",
                       prefix=confine.without("sys_admin"))  # fmt: skip
        resource.prlimit(source.pid, resource.RLIMIT_NOFILE, (0, limit[1]))
        refuse_running(source, out, "has 0 descriptors free")
        resource.prlimit(source.pid, resource.RLIMIT_NOFILE, limit)


def refuse_running(source, out, *words, prefix=()):
    """Its threads are never at rest."""
    for verb in (["dump", "--out", out], ["check"]):
        result = cli.run(*verb, "--pid", source.pid, prefix=prefix)
        result.expect_error(cli.REFUSED)
        for word in words:
            assert word in result.err, result.err
        assert_nothing_left(out)
