# SPDX-License-Identifier: GPL-2.0-or-later
"""A process that is no QEMU is dumped: the core is of one instant, in memory
and in registers, and nothing in the process has seen it."""

import os
import shutil
import signal
import stat
import subprocess
import time

import pytest
from harness import cli, host, process, victim
from harness.core import Core
from harness.victim import BUSY


def assert_private(image):
    """It holds what the process does not tell others."""
    assert stat.S_IMODE(image.stat().st_mode) == 0o700
    for path in image.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def assert_all_threads(target, facts):
    assert {t["tid"] for t in facts.threads} == process.tids(target.pid)
    # The main thread is the one that gdb selects.
    assert facts.threads and facts.thread("main")["frames"][-1] == "main"


# the core


def test_core_is_of_one_instant(start, judge, out):
    target = start(*BUSY)
    with process.unharmed(target):
        before = int(target.command("check")[0].split()[1])
        dumped = process.dump(target.pid, out)
        after = int(target.command("check")[0].split()[1])
    facts = judge(dumped.core)
    assert before <= facts.journal["seq"] <= after
    assert_all_threads(target, facts)
    assert_private(out)
    report = victim.rows(target.command("timers"))["timers"][1]
    assert report["due"] - 2 <= report["expired"] <= report["due"] + 1


def test_dumps_in_a_row(start, judge, out):
    """Each of a later instant than the one before."""
    target = start("journal=2,0,4096", "registers")
    seqs = []
    with process.unharmed(target):
        for i in range(8):
            dumped = process.dump(target.pid, out)
            seqs.append(judge(dumped.core).journal["seq"])
            shutil.rmtree(out)
        target.command("check")
    assert seqs == sorted(set(seqs))


def test_threads_are_found_where_they_wait(start, judge, out):
    """Each with its own stack, thread-local memory and registers."""
    target = start("wait", "timed=60000")
    facts = judge(process.dump(target.pid, out).core)
    assert_all_threads(target, facts)
    for row in facts.table:
        frames = facts.thread(row["name"])["frames"]
        if row["name"] != "main":
            assert any((f or "").startswith("block_") for f in frames), row
            assert "run_thread" in frames
    assert all(t["tls"] for t in facts.threads), facts.out
    assert len({t["fs_base"] for t in facts.threads}) == len(facts.threads)


def test_gdb_takes_the_core_without_a_complaint(start, out):
    target = start(*BUSY)
    exe = target.exe
    process.require_gdb()
    core = process.dump(target.pid, out).core
    text = process.gdb(exe, core, "info proc", "info auxv", "info sharedlibrary",
                       "info signals SIGALRM", "print victim_n_threads")  # fmt: skip
    assert "AT_SYSINFO_EHDR" in text and "AT_ENTRY" in text
    assert "libc.so.6" in text
    # Kernel and gdb list files with each mapping.
    assert str(exe) in process.gdb(exe, core, "info proc mappings")
    owners = {(owner, kind) for owner, kind, _ in Core(core).notes()}
    for kind in (1, 3, 6, 0x46494C45):  # PRSTATUS, PRPSINFO, AUXV, FILE
        assert ("CORE", kind) in owners
    assert ("LINUX", 0x202) in owners  # X86_XSTATE


def test_core_of_a_killed_program_needs_no_process(start, judge, out):
    target = start(*BUSY)
    core = process.dump(target.pid, out).core
    target.close()
    judge(core)


@pytest.mark.parametrize("how", ["convert", "convert-stream", "format",
                                 "format-stream"])  # fmt: skip
def test_core_by_other_ways(start, judge, out, tmp_path, how):
    target = start(*BUSY)
    core = tmp_path / "core"
    if how.startswith("convert"):
        process.dump(target.pid, out)
        args = ["convert", out, "--to", "core"]
    else:
        args = ["dump", "--pid", target.pid, "--format", "core"]
    with process.unharmed(target):
        if how.endswith("stream"):
            core.write_bytes(cli.run(*args, "--out", "-").expect(0).out)
        else:
            cli.run(*args, "--out", core).expect(cli.DONE)
    assert_all_threads(target, judge(core))
    core.unlink()
    target.command("check")


def test_inspect_says_the_same(start, out):
    target = start(*BUSY)
    figures = process.dump(target.pid, out).figures
    found = cli.run("inspect", out, "--json").expect(cli.DONE).json()
    for key in ("kind", "complete", "pause_ms", "pages", "bytes_written"):
        assert found[key] == figures[key], key


def test_check_touches_nothing(start):
    target = start("wait", *BUSY)
    with process.unharmed(target):
        cli.run("check", "--pid", target.pid, "--json").expect(cli.DONE).json()
    assert_woken(target)


# what waits


def assert_woken(target):
    """Each wait ends for what it waited for, and not before."""
    for name, (word, values) in victim.rows(target.command("wake")).items():
        if word == "none":
            continue
        assert word == "woken" and values["got"] == values["want"], (
            f"{name}: {word} {values}"
        )


@pytest.mark.parametrize("n_dumps", [1, 5])
def test_waits_do_not_end(start, out, n_dumps):
    target = start("wait", "journal=1")
    with process.unharmed(target):
        for _ in range(n_dumps):
            process.dump(target.pid, out)
            shutil.rmtree(out)
    assert_woken(target)


# They have no record of what is left, so a stop makes them start over.
START_OVER = {"epoll_wait", "sigtimedwait", "semtimedop", "recv", "io_uring"}


def test_time_goes_on(start, out):
    """What waits for a time to pass ends with what it returns then: not early
    and, where the kernel knows what is left, not late."""
    asked = 5000
    target = start(f"timed={asked}")
    begin = time.monotonic()
    time.sleep(0.45 * asked / 1000)
    process.dump(target.pid, out)
    at = 1000 * (time.monotonic() - begin)
    over = victim.rows(target.command("timed"))
    assert len(over) >= 11
    for name, (_, values) in over.items():
        assert values["got"] == values["want"], (name, values)
        assert values["elapsed_ms"] >= asked, (name, values)
        late = values["elapsed_ms"] - asked
        limit = at + asked / 4 if name in START_OVER else at / 2
        assert late < limit, (name, values, at)


def test_signals_reach_whom_they_are_for(start, out):
    """Sent while it is dumped, none is lost, none has another effect."""
    target = start("wait", "journal=2,0,16384")
    with cli.Running("dump", "--pid", target.pid, "--out", out) as dump:
        while dump.process.poll() is None:
            os.kill(target.pid, signal.SIGWINCH)  # blocked, stays pending
            time.sleep(0.001)
        dump.wait().expect(cli.DONE)
    assert_woken(target)
    target.command("check")


def test_stopped_process_stays_stopped(start, judge, out):
    """One that somebody stopped with a signal is dumped as it is, and goes on
    when it is told to."""
    target = start(*BUSY)
    os.kill(target.pid, signal.SIGSTOP)
    while not target.was_job_stopped():
        time.sleep(0.01)
    dumped = process.dump(target.pid, out, allow=(cli.DONE, cli.REFUSED))
    state = (f"/proc/{target.pid}/stat")
    assert open(state).read().rpartition(")")[2].split()[0] == "T"
    os.kill(target.pid, signal.SIGCONT)
    target.command("check")
    if dumped.code == cli.DONE:
        judge(dumped.core)


def test_traced_process_is_refused(start, out):
    """Somebody else has it: strace, gdb.  It is left to them."""
    target = start(*BUSY)
    process.require_gdb()
    with subprocess.Popen(
        ["gdb", "-nx", "-q", "-iex", "set debuginfod enabled off",
         "-p", str(target.pid)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    ) as debugger:  # fmt: skip
        try:
            debugger.stdin.write("print 6*7\n")
            debugger.stdin.flush()
            while "42" not in debugger.stdout.readline():
                pass
            result = cli.run("dump", "--pid", target.pid, "--out", out)
            result.expect_error(cli.REFUSED, "traced", "trace")
            debugger.stdin.write("detach\nquit\n")
            debugger.stdin.flush()
        finally:
            debugger.communicate(timeout=10)
    assert not out.exists()
    process.assert_clean(target.pid)
    target.command("check")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_dump_leaves_the_process_whole(start, out, number):
    """Nothing of ours is left, and no wait has ended (test_kill.py does this
    at length)."""
    target = start("wait", *BUSY)
    with process.unharmed(target):
        for delay in (0.002, 0.01, 0.03, 0.1):
            with cli.Running("dump", "--pid", target.pid, "--out", out) as dump:
                time.sleep(delay)
                dump.signal(number)
                dump.wait()
            assert not os.path.lexists(f"{out}.partial")
            shutil.rmtree(out, ignore_errors=True)
            process.assert_clean(target.pid)
            target.command("check")
    assert_woken(target)


def test_target_that_dies_is_an_error(start, out):
    target = start("journal=2,0,65536")
    with cli.Running("dump", "--pid", target.pid, "--out", out) as dump:
        time.sleep(0.03)
        os.kill(target.pid, signal.SIGKILL)
        result = dump.wait()
    if result.code != cli.DONE:
        assert result.code in (cli.FAILED, cli.REFUSED, cli.INCONSISTENT)
        assert result.err.startswith("snapuffd: ")
        assert not out.exists()


# several processes


def tree_cores(out):
    return {int(p.name): p / "memory.core" for p in out.iterdir()
            if p.is_dir() and p.name.isdigit()}  # fmt: skip


def test_tree_is_of_one_instant(start, judge, out):
    """Processes that write one journal in shared memory: each core has all of
    it as it was at the same step."""
    target = start("journal=1,2", "registers")
    pids = {target.pid} | process.descendants(target.pid)
    assert len(pids) == 3
    with process.unharmed(target):
        cli.run("dump", "--pid", target.pid, "--tree", "--out", out,
                "--json").expect(cli.DONE)  # fmt: skip
        target.command("check")
    cores = tree_cores(out)
    assert cores.keys() == pids
    facts = {pid: judge(core) for pid, core in cores.items()}
    assert len({f.journal["seq"] for f in facts.values()}) == 1
    for pid in pids:
        assert {t["tid"] for t in facts[pid].threads} == process.tids(pid)
        process.assert_clean(pid)


def test_shared_memory_that_others_write(start, judge, out):
    """Of one process alone: it is refused, or discarded, or right, or there is
    a warning that says who writes.  (gdb's own cores of such a process are
    torn, and it does not say so.)"""
    target = start("journal=1,1,4096")
    child, = process.children(target.pid)
    for _ in range(3):
        dumped = process.dump(
            target.pid, out,
            allow=(cli.DONE, cli.REFUSED, cli.INCONSISTENT),
        )  # fmt: skip
        told = f"UNSAFE, the snapshot may be torn: process {child} "
        if dumped.code == cli.DONE and told not in dumped.err:
            judge(dumped.core)
        shutil.rmtree(out, ignore_errors=True)
    target.command("check")


def test_freeze_by_cgroup(cgroup, start, judge, out):
    target = start(*BUSY)
    host.join(cgroup, target.pid)
    with process.unharmed(target):
        dumped = process.dump(target.pid, out, "--freeze", "cgroup")
        target.command("check")
    judge(dumped.core)
    assert (cgroup / "cgroup.freeze").read_text().strip() == "0"
    target.close()


# who is refused


def test_ourselves_and_kernel_threads_are_refused(out):
    for pid in (2, os.getpid()):
        result = cli.run("dump", "--pid", pid, "--out", out)
        if pid == 2:
            result.expect_error(cli.REFUSED)
        assert not out.exists() or result.code == cli.DONE
        shutil.rmtree(out, ignore_errors=True)


def test_zombie_is_refused(out):
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    try:
        result = cli.run("dump", "--pid", child.pid, "--out", out)
        assert result.code in (cli.FAILED, cli.REFUSED), result
        assert not out.exists()
    finally:
        child.wait()
