# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that goes away while it is captured: each dump is right, or says that
it could not be kept consistent.  Never wrong."""

import os
import shutil
import signal
import threading
import time

import pytest
from harness import cli, host, inject, process, procstate, victim
from harness.core import Core

KINDS = ("unmap", "free", "discard", "holes", "grow", "remap", "punch",
         "protect", "threads", "fork", "exec")  # fmt: skip
N_DUMPS = 6


def assert_sound(target):
    """Nothing that it read in its own memory was wrong, and it goes on."""
    first = victim.rows(target.command("churn"))
    deadline = time.monotonic() + 20
    hang = set(first)
    while hang:
        assert time.monotonic() < deadline, f"{hang} hang"
        time.sleep(0.3)
        now = victim.rows(target.command("churn"))
        for name, (_, values) in now.items():
            assert values["failed"] == 0, (name, values)
            if values["rounds"] > first[name][1]["rounds"]:
                hang.discard(name)


def dump_in_a_row(target, judge, out, *options, n=N_DUMPS, tolerant=True):
    """Returns the exit codes."""
    allow = (cli.DONE, cli.INCONSISTENT) if tolerant else (cli.DONE,)
    codes = []
    for _ in range(n):
        dumped = process.dump(target.pid, out, *options, allow=allow)
        codes.append(dumped.code)
        if dumped.code == cli.DONE:
            judge(dumped.core)
        shutil.rmtree(out, ignore_errors=True)
        process.assert_clean(target.pid)
    print(f"exit codes: {codes}")
    return codes


@pytest.mark.parametrize("kind", KINDS)
def test_one_kind(start, judge, out, kind):
    target = start("journal=1", f"churn={kind}")
    codes = dump_in_a_row(target, judge, out)
    assert_sound(target)
    # A dumper that never succeeds is right, and of no use.
    assert cli.DONE in codes


def test_all_kinds_at_once(start, judge, out):
    target = start("journal=2", "registers", "churn=" + ",".join(KINDS))
    dump_in_a_row(target, judge, out)
    assert_sound(target)


def test_retries(start, judge, out):
    """What is discarded is tried again."""
    target = start("journal=1", "churn=unmap,free")
    dump_in_a_row(target, judge, out, "--retries", "5")
    assert_sound(target)


@pytest.mark.parametrize("hold", ["yes", "auto", "no"])
def test_hold_unmaps(start, judge, out, hold):
    """Held back, no unmapping can cost the snapshot."""
    target = start("journal=1", "churn=unmap,free,discard,threads")
    codes = dump_in_a_row(target, judge, out, f"--hold-unmaps={hold}",
                          tolerant=hold != "yes")  # fmt: skip
    assert codes.count(cli.DONE) >= 1
    assert_sound(target)


def test_discards_alone_lose_nothing(start, judge, out):
    """madvise waits for the page to be captured: never exit 4."""
    target = start("journal=1", "churn=discard")
    dump_in_a_row(target, judge, out, tolerant=False)
    assert_sound(target)


def test_moves_are_followed(start, judge, out):
    """What mremap moves about, flat out, is captured wherever it is; but for
    the few times that what came first cannot be told, which end the dump."""
    target = start("journal=1", "churn=move")
    codes = dump_in_a_row(target, judge, out, "--hold-unmaps=no", "--retries",
                          "0")  # fmt: skip
    assert codes.count(cli.DONE) > len(codes) // 2
    assert_sound(target)


RESERVE = """
import mmap, sys
hole = mmap.mmap(-1, 4 << 30, flags=mmap.MAP_PRIVATE | 0x4000)  # NORESERVE
for at in range(0, 4 << 30, 64 << 20):
    hole[at] = 1
print("ready", flush=True)
sys.stdin.read()
"""


def test_memory_that_is_not_there_costs_nothing(targets, out):
    """4 GiB of which 64 pages exist: so much is written, and so much stays."""
    target = targets.start(["/usr/bin/python3", "-c", RESERVE], "ready")
    before = rss_kib(target.pid)
    with process.unharmed(target):
        dumped = process.dump(target.pid, out)
    blocks = sum(p.stat().st_blocks // 2 for p in out.iterdir())
    assert dumped.core.stat().st_size > 4 << 30
    assert blocks < before * 1.1 + 4096
    assert rss_kib(target.pid) < before * 1.1 + 1024


def rss_kib(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status
                    if line.startswith("VmRSS:"))  # fmt: skip


PYTHON = os.path.realpath("/usr/bin/python3")
NT_FILE = 0x46494C45
EXEC = "import os, sys, time; print('ready', flush=True); time.sleep({}); " \
       "os.execv('/bin/sleep', ['sleep', '60'])"  # fmt: skip


def test_exec_meanwhile(targets, out):
    """The program that was dumped is replaced by another one."""
    for delay in (0.05, 0.1, 0.2):
        target = targets.start(
            ["/usr/bin/python3", "-c", EXEC.format(delay)], "ready"
        )
        code = process.dump(
            target.pid, out,
            allow=(cli.DONE, cli.INCONSISTENT, cli.FAILED, cli.REFUSED),
        ).code  # fmt: skip
        host.wait_for(lambda: target.exe.endswith("/sleep"))
        process.assert_clean(target.pid)
        if code == cli.DONE:
            # Which of the two it was then.
            core = out / "memory.core"
            files = next(data for _, kind, data in Core(core).notes()
                         if kind == NT_FILE)  # fmt: skip
            exe = PYTHON if PYTHON.encode() in files else target.exe
            names = process.gdb_backtrace(exe, core, target.pid)
            assert any("sleep" in name for name in names), names
        shutil.rmtree(out, ignore_errors=True)


def test_two_dumpers_at_once(start, judge, out):
    """One of them may be refused; neither core is wrong."""
    cli.program()
    target = start("journal=1", "churn=threads,fork")
    codes, cores = [], []

    def run(path):
        result = cli.run("dump", "--pid", target.pid, "--out", path)
        codes.append(result.code)
        if result.code == cli.DONE:
            cores.append(path / "memory.core")

    paths = [out, out.with_name("image2")]
    threads = [threading.Thread(target=run, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(codes) == 2 and set(codes) <= {0, 1, 3, 4}, codes
    for core in cores:
        judge(core)
    process.assert_clean(target.pid)
    assert_sound(target)


FORKER = """
import mmap, os
memory = mmap.mmap(-1, 64 << 20)
memory[:] = b"A" * len(memory)
print(hex(id(memory)), flush=True)
print("ready", flush=True)
for i in range(1, len(memory) // 4096):
    child = os.fork()
    if not child:
        memory[0:4] = i.to_bytes(4, "little")
        memory[i * 4096 : i * 4096 + 4] = i.to_bytes(4, "little")
        os._exit(0)
    os.waitpid(child, 0)
"""


def test_children_share_memory(targets, out):
    """Those that are forked meanwhile write to it, one page after another, and
    how many there are to the first: no page is ahead of that."""
    target = targets.start(["/usr/bin/python3", "-c", FORKER], "^ready$")
    n_before = 0
    for _ in range(N_DUMPS):
        dumped = process.dump(target.pid, out)
        shared = max(
            (Core(dumped.core).read(start, end - start)
             for start, end in shared_ranges(out)), key=len)  # fmt: skip
        count = int.from_bytes(shared[:4], "little")
        n_written = sum(
            shared[at : at + 4] != b"AAAA" for at in range(4096, 64 << 20, 4096)
        )
        assert n_written in (count, count - 1), (count, n_written)
        assert count > n_before
        n_before = count
        shutil.rmtree(out)
    process.assert_clean(target.pid)


STRAY = """
import mmap, os, sys, threading, time
memory = mmap.mmap(-1, 64 << 20)
memory[:] = b"A" * len(memory)
first, last = (memoryview(memory)[at:at + 8].cast("Q")
               for at in (0, (64 << 20) - 4096))
first[0] = last[0] = 0

def is_traced():
    for tid in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{tid}/status") as status:
            if "TracerPid:\\t0\\n" not in status.read():
                return True
    return False

def write():
    i = 0
    while True:
        i += 1
        first[0] = i
        last[0] = i

def fork():
    print("ready", flush=True)
    while not is_traced():
        pass
    if not os.fork():
        write()

threading.Thread(target=fork).start()
time.sleep(600)
"""


@pytest.mark.parametrize("options", [[], ["--retries", "0"]],
                         ids=["again", "once"])  # fmt: skip
def test_a_child_between_infection_and_first_stop(targets, out, options):
    """It is forked when the dump has begun, lives, and writes to two pages in
    turn; nobody gets a userfaultfd of it. Then the image says so."""
    n_told = 0
    for _ in range(10):
        target = targets.start(["/usr/bin/python3", "-c", STRAY], "^ready$")
        dumped = process.dump(target.pid, out, *options)
        first, last = read_pair(out, dumped.core)
        unsafe = cli.run("inspect", out, "--json").json()["unsafe"]
        assert unsafe or first - last in (0, 1), (first, last)
        told = "was started meanwhile" in dumped.err
        if told:
            assert unsafe
            assert ("trying again" in dumped.err) == (not options)
        n_told += told
        shutil.rmtree(out)
        process.assert_clean(target.pid)
        target.close()
        if n_told == 2:
            break
    # Now and then it is forked too late, and is held back.
    assert n_told


HEIR = """
import os, threading, time

memory = bytearray(b"A" * (16 << 20))

def has_uffd():
    for fd in os.listdir("/proc/self/fd"):
        try:
            if "userfaultfd]" in os.readlink(f"/proc/self/fd/{fd}"):
                return True
        except OSError:
            pass
    return False

def fork():
    print("ready", flush=True)
    while not has_uffd():
        pass
    if os.fork():
        print("forked", flush=True)
    else:
        time.sleep(600)

threading.Thread(target=fork).start()
time.sleep(600)
"""


def test_a_child_that_inherits_the_descriptor(targets, out):
    """It is forked while the userfaultfd is in the target: closing ours does
    not end it, and the target must be let go all the same."""
    target = targets.start(["/usr/bin/python3", "-c", HEIR], "^ready$")
    result, _ = inject.run("infect-take-uffd:stall=1", "dump", "--pid",
                           target.pid, "--out", out)  # fmt: skip
    result.expect(cli.DONE)
    assert_has_heir(target)
    process.assert_clean(target.pid)


def assert_has_heir(target):
    target.wait_line("^forked$")
    (child,) = process.children(target.pid)
    assert any("userfaultfd]" in link
               for link in procstate.capture(child).fds.values())  # fmt: skip


def test_a_child_that_inherits_and_the_engine_is_killed(targets, out):
    """What it has inherited was never used: the kernel lets the target go."""
    target = targets.start(["/usr/bin/python3", "-c", HEIR], "^ready$")
    with cli.Running("dump", "--pid", target.pid, "--out", out,
                     exe=inject.program(),
                     env={"SNAPUFFD_INJECT": "infect-take-uffd:stall=1"},
                     ) as dump:  # fmt: skip
        assert dump.hold_when_armed(target.pid)
        os.kill(dump.engine(), signal.SIGKILL)
        assert dump.wait().code == -signal.SIGKILL
    assert_has_heir(target)
    process.assert_clean(target.pid)


def read_pair(image, core):
    start, end = max(shared_ranges(image), key=lambda r: r[1] - r[0])
    return [int.from_bytes(Core(core).read(at, 8), "little")
            for at in (start, end - 4096)]  # fmt: skip


def shared_ranges(image):
    found = cli.run("inspect", image, "--json").expect(cli.DONE).json()
    return [(int(m["start"], 16), int(m["end"], 16)) for m in found["mappings"]
            if m["prot"][3] == "s" and m["held"] >= 64 << 20]  # fmt: skip
