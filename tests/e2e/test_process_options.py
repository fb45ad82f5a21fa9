# SPDX-License-Identifier: GPL-2.0-or-later
"""What the options of a dump of processes promise: what stands, for how long,
what is in the core.  Whatever is refused is one line, and harms nobody."""

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from harness import cli, host, memory, process, procstate, victim
from harness.core import Core
from harness.guest import GuestSpec
from harness.memory import ANON, ANON_SHARED, DEFAULT, FILE, FILE_SHARED
from harness.process import PAGE, assert_nothing_left
from harness.victim import BUSY

#: Private pages of a file on a disk: what makes a pause long.
DIRTY_MIB = 256


@pytest.fixture(scope="module")
def disk():
    """A directory of which private mappings cannot be protected."""
    kind = subprocess.run(["stat", "-f", "-c", "%T", "/var/tmp"],
                          capture_output=True, text=True).stdout  # fmt: skip
    if kind.strip() in ("tmpfs", "ramfs"):
        pytest.skip("/var/tmp is no disk")
    return "/var/tmp"


def warnings(result):
    return [line for line in result.err.splitlines()
            if line.startswith("snapuffd: warning: ")]  # fmt: skip


# --freeze cgroup


def is_thawed(cgroup):
    return (
        (cgroup / "cgroup.freeze").read_text().strip() == "0"
        and "frozen 0" in (cgroup / "cgroup.events").read_text()
    )


def assert_thawed(cgroup, target):
    """Also when it was the keeper's to do, which takes a moment."""
    host.wait_for(lambda: is_thawed(cgroup), timeout=5)
    # So is the cure of what the dump was in the middle of.
    host.wait_for(
        lambda: not procstate.traces_left(procstate.capture(target.pid)),
        timeout=5,
    )
    process.assert_clean(target.pid)
    target.command("check")


def dump_frozen(pid, out, *options):
    return cli.run("dump", "--pid", pid, "--out", out, "--freeze", "cgroup",
                   *options)  # fmt: skip


def test_cgroup_is_frozen_and_thawed(cgroup, start, judge, out):
    target = start(*BUSY, cgroup=cgroup)
    with process.unharmed(target):
        for _ in range(4):
            core = process.dump(target.pid, out, "--freeze", "cgroup").core
            judge(core)
            assert_thawed(cgroup, target)
            shutil.rmtree(out)


def test_tree_in_a_cgroup(cgroup, start, judge, out):
    target = start("journal=1,2", "registers", cgroup=cgroup)
    pids = {target.pid} | process.descendants(target.pid)
    assert len(pids) == 3
    with process.unharmed(target):
        dump_frozen(target.pid, out, "--tree").expect(cli.DONE)
        assert_thawed(cgroup, target)
    assert {int(path.name) for path in out.iterdir()} == pids
    seqs = {judge(out / str(pid) / "memory.core").journal["seq"]
            for pid in pids}  # fmt: skip
    assert len(seqs) == 1
    for pid in pids:
        process.assert_clean(pid)


def refuse_frozen(target, out, *words, options=()):
    with process.unharmed(target):
        # Quiet: it may warn of who shares memory, too.
        dump_frozen(target.pid, out, "--quiet", *options).expect_error(
            cli.REFUSED, *words
        )
        assert_nothing_left(out)
    target.command("check")


@pytest.mark.parametrize("below", [False, True], ids=["beside", "below"])
def test_cgroup_of_others_is_refused(cgroup, start, targets, out, below):
    target = start(*BUSY, cgroup=cgroup)
    place = cgroup / "below" if below else cgroup
    place.mkdir(exist_ok=True)
    other = targets.start(["sleep", "1000"])
    host.join(place, other.pid)
    refuse_frozen(target, out, f"process {other.pid} ")
    assert is_thawed(cgroup)
    other.close()
    dump_frozen(target.pid, out).expect(cli.DONE)


def test_children_in_the_cgroup_need_tree(cgroup, start, out):
    target = start("journal=1,1", cgroup=cgroup)
    child, = process.children(target.pid)
    refuse_frozen(target, out, f"process {child} ")


def test_tree_that_is_not_all_in_the_cgroup(cgroup, start, out):
    target = start("journal=1,1", cgroup=cgroup)
    child, = process.children(target.pid)
    host.join(cgroup.parent, child)
    refuse_frozen(target, out, f"process {child} is not in",
                  options=["--tree"])  # fmt: skip
    assert is_thawed(cgroup)


def test_root_cgroup_is_refused(cgroup, start, out):
    target = start(*BUSY, cgroup=cgroup.parent)
    refuse_frozen(target, out, "no cgroup")


def test_cgroup_that_is_frozen_stays_frozen(cgroup, start, out):
    target = start(*BUSY, cgroup=cgroup)
    (cgroup / "cgroup.freeze").write_text("1")
    host.wait_for(lambda: "frozen 1" in (cgroup / "cgroup.events").read_text())
    dump_frozen(target.pid, out).expect_error(cli.REFUSED, "frozen already")
    assert_nothing_left(out)
    assert (cgroup / "cgroup.freeze").read_text().strip() == "1"
    assert "frozen 1" in (cgroup / "cgroup.events").read_text()
    (cgroup / "cgroup.freeze").write_text("0")
    assert_thawed(cgroup, target)


def test_frozen_process_is_not_dumped(cgroup, start, out):
    """It can run none of our calls until somebody thaws it."""
    target = start(*BUSY, cgroup=cgroup)
    (cgroup / "cgroup.freeze").write_text("1")
    host.wait_for(lambda: "frozen 1" in (cgroup / "cgroup.events").read_text())
    for args in (["dump", "--out", out], ["dump", "--tree", "--out", out],
                 ["check", "--quiet"]):  # fmt: skip
        cli.run(*args, "--pid", target.pid).expect_error(cli.REFUSED, "frozen")
    assert_nothing_left(out)
    assert (cgroup / "cgroup.freeze").read_text().strip() == "1"
    (cgroup / "cgroup.freeze").write_text("0")
    assert_thawed(cgroup, target)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_at_any_moment_leaves_it_thawed(cgroup, start, out, number):
    target = start(*BUSY, cgroup=cgroup)
    chance = random.Random(7)
    for _ in range(12):
        with cli.Running("dump", "--pid", target.pid, "--out", out,
                         "--freeze", "cgroup") as dump:  # fmt: skip
            time.sleep(chance.uniform(0, 0.08))
            dump.signal(number)
            dump.wait()
        assert_thawed(cgroup, target)
        if not out.exists():
            assert_nothing_left(out)
        shutil.rmtree(out, ignore_errors=True)


def wait_frozen(cgroup, dump):
    """Returns whether the dump was seen to freeze it."""
    fd = os.open(cgroup / "cgroup.freeze", os.O_RDONLY)
    try:
        while dump.process.poll() is None:
            for _ in range(200):
                if os.pread(fd, 1, 0) == b"1":
                    return True
        return False
    finally:
        os.close(fd)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_while_it_is_frozen(cgroup, start, out, disk, number):
    """The pause is long enough to be hit."""
    target = start("journal=1", f"dirty={DIRTY_MIB},{disk}", cgroup=cgroup)
    n_hit = 0
    for _ in range(4):
        with cli.Running("dump", "--pid", target.pid, "--out", out, "--quiet",
                         "--freeze", "cgroup") as dump:  # fmt: skip
            if wait_frozen(cgroup, dump):
                dump.signal(number)
                n_hit += 1
            result = dump.wait()
        if result.code not in (cli.DONE, -signal.SIGKILL):
            result.expect_error(cli.FAILED, "interrupted")
        if not out.exists():
            assert_nothing_left(out)
        assert_thawed(cgroup, target)
        shutil.rmtree(out, ignore_errors=True)
    assert n_hit


# --max-pause


@pytest.mark.parametrize("how", ["ptrace", "cgroup"])
def test_pause_that_would_be_too_long(cgroup, start, out, disk, how):
    target = start(*BUSY, f"dirty={DIRTY_MIB},{disk}", cgroup=cgroup)
    with process.unharmed(target):
        for ms in (1, 4):
            result = cli.run("dump", "--pid", target.pid, "--out", out,
                             "--quiet", "--freeze", how, "--retries", 0,
                             "--max-pause", ms)  # fmt: skip
            result.expect_error(cli.FAILED, "max-pause", "longer")
            assert_nothing_left(out)
            assert_thawed(cgroup, target)


@pytest.mark.parametrize("n_mib", [1, DIRTY_MIB])
def test_memory_that_makes_the_pause_long_is_told(start, out, disk, n_mib):
    target = start("journal=1", f"dirty={n_mib},{disk}")
    report = cli.run("check", "--pid", target.pid, "--json").json()
    assert n_mib << 20 <= report["copy_bytes"] < (n_mib + 4) << 20
    dumped = process.dump(target.pid, out, "--max-pause", "60000")
    told = [line for line in dumped.err.splitlines()
            if f"pid {target.pid}: {n_mib} MiB of memory" in line]  # fmt: skip
    assert len(told) == (n_mib == DIRTY_MIB), dumped.err
    assert ("warning" in dumped.err) == bool(told)
    target.command("check")


def starve(pid, tid):
    """Pins one thread to a processor on which a real-time process runs all the
    time, and has it run only when nobody else does."""
    os.sched_setaffinity(tid, {0})
    os.sched_setscheduler(tid, os.SCHED_IDLE, os.sched_param(0))
    return subprocess.Popen(
        ["/usr/bin/python3", "-c", "while True: pass"],
        preexec_fn=lambda: (os.sched_setaffinity(0, {0}),
                            os.sched_setscheduler(0, os.SCHED_FIFO,
                                                  os.sched_param(1))),
    )  # fmt: skip


def dump_starved(target, tid, out):
    """The kernel gives it some time now and then; what the dump said."""
    hog = starve(target.pid, tid)
    try:
        with cli.Running("dump", "--pid", target.pid, "--out", out,
                         "--max-pause", "50", "--retries", "100") as dump:  # fmt: skip
            time.sleep(2)
            hog.kill()
            return dump.wait().expect(cli.DONE).err
    finally:
        hog.kill()
        hog.wait()


def test_a_starved_thread_is_worth_another_attempt(start, judge, out):
    """It does not stop in time, for it does not run at all; when it does, the
    dump is right."""
    if os.cpu_count() < 2:
        pytest.skip("one processor only")
    target = start("journal=2")
    tid = max(process.tids(target.pid))
    for _ in range(5):
        shutil.rmtree(out, ignore_errors=True)
        said = dump_starved(target, tid, out)
        if said:
            break
    assert f"thread {tid} did not stop in 50 ms" in said
    assert "no processor" in said and "trying again" in said
    judge(out / "memory.core")
    process.assert_clean(target.pid)
    target.command("check")


# what is in the core


@pytest.mark.parametrize(
    "bits",
    [0, ANON, ANON_SHARED, FILE, FILE_SHARED, ANON | FILE, DEFAULT],
    ids=hex,
)
def test_coredump_filter(start, out, tmp_path, bits):
    target = start(f"memory={tmp_path}")
    Path(f"/proc/{target.pid}/coredump_filter").write_text(hex(bits))
    with process.unharmed(target):
        cli.run("dump", "--pid", target.pid, "--out", out).expect(cli.DONE)
    want = {name for name, needed in memory.BLOCKS.items() if needed & bits}
    assert memory.held(memory.where(target), out / "memory.core") == want
    cli.run("verify", out).expect(cli.DONE)


@pytest.mark.parametrize("bits", [0, DEFAULT], ids=hex)
def test_all_takes_everything(start, out, tmp_path, bits):
    target = start(f"memory={tmp_path}")
    Path(f"/proc/{target.pid}/coredump_filter").write_text(hex(bits))
    with process.unharmed(target):
        core = process.dump(target.pid, out, "--all").core
    assert memory.held(memory.where(target), core) == memory.BLOCKS.keys()
    # Also the text of programs, byte by byte.
    text = next(m for m in procstate.capture(target.pid).mappings
                if "x" in m.perms and m.name == target.exe)  # fmt: skip
    with open(f"/proc/{target.pid}/mem", "rb") as file:
        file.seek(text.start)
        want = file.read(text.end - text.start)
    assert Core(core).read(text.start, len(want)) == want


def test_gdb_reads_memory_that_the_process_may_not(start, out, tmp_path):
    target = start(f"memory={tmp_path}")
    core = process.dump(target.pid, out).core
    for name, (at, n_pages) in memory.where(target).items():
        if not name.startswith("none-"):
            continue
        for page, text in enumerate(memory.texts(name, n_pages)):
            told = process.gdb(target.exe, core, f"x/s {at + page * PAGE}")
            assert f'"{text}"' in told


# words that do not go together


@pytest.mark.parametrize(
    "args",
    [
        ["--as", "frobnicate"],
        ["--as", ""],
        ["--freeze", "frobnicate"],
        ["--freeze", ""],
        ["--hold-unmaps", "maybe"],
        ["--hold-unmaps", ""],
        ["--max-pause", "0"],
        ["--max-pause", "-1"],
        ["--max-pause", "1ms"],
        ["--max-pause", "60001"],
        ["--max-pause", "99999999999999999999"],
        ["--max-pause", ""],
        ["--retries", "-1"],
        ["--retries", "101"],
        ["--retries", "two"],
        ["--retries"],
        ["--max-pause"],
        ["--freeze"],
        ["--tree", "--format", "core"],
        ["--tree", "--format", "qemu"],
        ["--format", "qemu"],
        ["--disks", "overlay"],
        ["--exec-frozen", "true"],
        ["--as", "process", "--format", "qemu"],
        ["--as", "qemu", "--tree"],
        ["--as", "qemu", "--format", "core"],
    ],
    ids=" ".join,
)
def test_usage_error(start, out, args):
    target = start()
    with process.unharmed(target):
        result = cli.run("dump", "--pid", target.pid, "--out", out, *args)
        result.expect_error(cli.USAGE)
    assert result.out == b""
    assert_nothing_left(out)


def test_process_is_no_qemu(start, out):
    target = start(*BUSY)
    with process.unharmed(target):
        for args in (["dump", "--out", out], ["check", "--quiet"]):
            cli.run(*args, "--pid", target.pid, "--as", "qemu").expect_error(
                cli.REFUSED, "not a QEMU"
            )
        # Nothing is said of a VM that there is none of.
        result = cli.run("check", "--pid", target.pid, "--as", "qemu")
        assert b"null" not in result.out and b"machine" not in result.out
    assert_nothing_left(out)


@pytest.fixture(scope="module")
def guest(module_guests):
    return module_guests.start(GuestSpec())


@pytest.mark.parametrize(
    "args",
    [
        ["--format", "core"],
        ["--tree"],
        ["--all"],
        ["--freeze", "cgroup"],
        ["--as", "qemu", "--tree"],
        ["--as", "process", "--disks", "overlay"],
        ["--as", "process", "--exec-frozen", "true"],
        ["--as", "process", "--format", "qemu"],
    ],
    ids=" ".join,
)
def test_usage_error_of_a_qemu(guest, out, args):
    with procstate.unharmed(guest):
        result = cli.run("dump", "--pid", guest.pid, "--out", out, *args)
        result.expect_error(cli.USAGE, args[-2 if len(args) > 1 else 0],
                            args[-1])  # fmt: skip
    assert_nothing_left(out)


def test_qemu_as_a_process(guest, out):
    """Its core has what no image of a QEMU has: its own memory."""
    exe = os.readlink(f"/proc/{guest.pid}/exe")
    with procstate.unharmed(guest):
        dumped = process.dump(guest.pid, out, "--as", "process")
    process.assert_threads(dumped, process.gdb_threads(exe, dumped.core))
    text = process.gdb(exe, dumped.core, "info auxv")
    assert "qemu-system-x86_64" in next(
        line for line in text.splitlines() if "AT_EXECFN" in line
    )


# check


KEYS = {"kind", "program", "n_threads", "n_mappings", "capture_bytes",
        "copy_bytes", "remarks", "obstacles", "ok"}  # fmt: skip


def test_check_of_a_process(start):
    target = start(*BUSY)
    with process.unharmed(target):
        report = cli.run("check", "--pid", target.pid, "--json")
        text = cli.run("check", "--pid", target.pid).expect(cli.DONE)
        quiet = cli.run("check", "--pid", target.pid, "--quiet")
    assert quiet.expect(cli.DONE).out == b"" == quiet.err.encode()
    assert report.err == text.err == ""
    found = report.expect(cli.DONE).json()
    assert KEYS <= found.keys()
    assert found["kind"] == "process" and found["ok"] is True
    assert found["program"] == target.exe
    assert found["n_threads"] == len(process.tids(target.pid))
    maps = Path(f"/proc/{target.pid}/maps").read_text().splitlines()
    assert found["n_mappings"] in (len(maps), len(maps) - 1)  # vsyscall
    assert found["obstacles"] == found["remarks"] == []
    assert 4 << 20 <= found["capture_bytes"] < 1 << 30
    assert 0 < found["copy_bytes"] < 4 << 20
    lines = text.out.decode().splitlines()
    assert lines[-1] == "this target can be dumped"
    assert f"  program    {target.exe}" in lines
    assert f"  threads    {found['n_threads']}" in lines
    assert f"  mappings   {found['n_mappings']}" in lines


def test_check_tells_who_shares_memory(start):
    target = start("journal=1,1")
    child, = process.children(target.pid)
    report = cli.run("check", "--pid", target.pid, "--json")
    remarks = report.expect(cli.DONE).json()["remarks"]
    assert len(remarks) == 1 and f"process {child} (" in remarks[0]
    text = cli.run("check", "--pid", target.pid).expect(cli.DONE).out.decode()
    assert f"  remark     {remarks[0]}" in text.splitlines()


def test_check_of_what_is_gone():
    with subprocess.Popen(["true"]) as gone:
        pass
    for options in ([], ["--quiet"], ["--json"], ["--as", "process"]):
        result = cli.run("check", "--pid", gone.pid, *options)
        result.expect_error(cli.REFUSED, "no such process")
    found = cli.run("check", "--pid", gone.pid, "--json").json()
    assert found["ok"] is False
