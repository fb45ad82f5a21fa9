# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever becomes of the dumper, of its disk, of its reader, of QEMU's
monitor: nobody waits for longer than --max-stall, or --max-pause, allows, and
a few moments more; the dump fails and says why, the next one succeeds."""

import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from harness import cli, host, process, procstate
from harness.guest import GuestSpec
from harness.process import assert_nothing_left
from harness.procstate import unharmed
from test_pipe import pipe, wait_until_full

PTRACE_ATTACH = 16
WALL = 0x40000000

HERE = Path(__file__).resolve().parent
MIB = 1 << 20

STALL_MS = 1500
#: What may come on top: looks of the watchdog, the dumper's way out, a busy
#: machine.
SLACK_MS = 2500

#: The capture takes several times as long as a stall, and there are buffers for
#: a part of it only.
SLOW = ("--rate-limit", "20", "--buffer", "16M")


@pytest.fixture
def writer(targets):
    """One that measures how long it was kept waiting."""

    def start(mib=192, *words, **options):
        return targets.start(
            [sys.executable, HERE / "targets/writer.py", mib, *words],
            "^ready$", **options,
        )  # fmt: skip

    return start


def worst_ms(target):
    """Since the last time; waits for one that is held up."""
    line, *_ = target.command("gap", timeout=60)
    return float(re.fullmatch(r"gap (\S+)", line)[1])


def arguments(target, out, *options, stall=STALL_MS):
    return ["dump", "--pid", target.pid, "--out", out, "--quiet",
            "--max-stall", stall, *options]  # fmt: skip


@contextlib.contextmanager
def survives(target, limit_ms=STALL_MS + SLACK_MS):
    """It is as it was, was not held up for longer, and can be dumped."""
    with process.unharmed(target):
        worst_ms(target)
        yield
        worst = worst_ms(target)
        assert worst < limit_ms, f"held up for {worst:.0f} ms"


def assert_next_succeeds(target, out):
    """Also where a killed dump has left something."""
    cli.run(*arguments(target, out, stall=cli.MAX_STALL_MS)).expect(cli.DONE)
    cli.run("verify", out).expect(cli.DONE)


def wait_until_captured(running, target, out, mib=4):
    """Until the capture is under way, and some of it is on the disk."""
    core = Path(f"{out}.partial/memory.core")

    def probe():
        assert running.process.poll() is None, running.wait().err
        with contextlib.suppress(FileNotFoundError):
            return core.stat().st_blocks * 512 >= mib * MIB

    host.wait_for(probe)


# the dumper is stopped


@pytest.mark.parametrize("options", [(), ("--hold-unmaps", "yes")],
                         ids=["faults", "calls"])  # fmt: skip
def test_stopped_in_the_capture(writer, out, options):
    target = writer(192, "churn")
    with survives(target):
        with cli.Running(*arguments(target, out, *SLOW, *options)) as running:
            wait_until_captured(running, target, out)
            os.kill(running.engine(), signal.SIGSTOP)
            running.wait(timeout=60).expect_error(cli.FAILED, "stopped")
        assert_nothing_left(out)
    assert_next_succeeds(target, out)


def is_traced(pid):
    with contextlib.suppress(FileNotFoundError):
        stat = Path(f"/proc/{pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] == "t"


def stop_in_a_pause(target, out, *options):
    """False: it was over before it could be caught."""
    held = False
    with cli.Running(*arguments(target, out, *options)) as running:
        while running.process.poll() is None and not held:
            if not is_traced(target.pid):
                continue
            with contextlib.suppress(ProcessLookupError):
                os.kill(running.engine(), signal.SIGSTOP)
            # The one that stands may not be ours: a keeper has the main
            # thread, for less time than this takes.
            time.sleep(0.05)
            held = is_traced(target.pid)
            if not held:
                running.resume()
        result = running.wait(timeout=60)
    if held:
        assert result.code == cli.FAILED, result.err
        assert "stopped" in result.err, result.err
    return held


def test_stopped_in_the_pause(start, out):
    """One that takes long, for what it has to copy."""
    place = "/var/tmp"
    target = start("journal=1", f"dirty=128,{place}")
    with process.unharmed(target):
        for _ in range(30):
            since = time.monotonic()
            held = stop_in_a_pause(target, out, "--max-pause", "1100")
            took_ms = 1000 * (time.monotonic() - since)
            shutil.rmtree(out, ignore_errors=True)
            if held:
                break
        else:
            pytest.fail("never caught in a pause")
        assert took_ms < STALL_MS + 2 * SLACK_MS
        assert_nothing_left(out)
    target.command("check")
    assert_next_succeeds(target, out)


# the disk hangs


@contextlib.contextmanager
def freezable(mib=512):
    """The path of a file system, and what has its writers wait."""
    if not shutil.which("fsfreeze"):
        pytest.skip("fsfreeze is not installed")

    def freeze(on=True):
        subprocess.run(["fsfreeze", "-f" if on else "-u", place],
                       check=on, capture_output=True)  # fmt: skip

    with tempfile.NamedTemporaryFile(prefix="snapuffd-disk-",
                                     dir="/var/tmp") as file:  # fmt: skip
        file.truncate(mib * MIB)
        with host.ext4(file.name) as place:
            try:
                yield place, freeze
            finally:
                freeze(False)


@pytest.mark.parametrize("options", [(), ("--no-io-uring", "--no-direct")],
                         ids=["default", "plain"])  # fmt: skip
def test_disk_that_hangs(writer, options):
    target = writer()
    with freezable() as (place, freeze):
        out = place / "image"
        with survives(target):
            with cli.Running(*arguments(target, out, "--buffer", "16M",
                                        "--rate-limit", "40", *options,
                                        )) as running:  # fmt: skip
                wait_until_captured(running, target, out)
                freeze()
                # It writes on, though the dumper may not end before its disk
                # does something.
                worst_ms(target)
                time.sleep((STALL_MS + SLACK_MS) / 1000)
                assert not procstate.is_registered(target.pid)
                worst = worst_ms(target)
                freeze(False)
                result = running.wait(timeout=60)
        result.expect_error(cli.FAILED, "output takes no more")
        assert worst < STALL_MS + SLACK_MS
        assert_nothing_left(out)
        assert_next_succeeds(target, out)


# no processor


@contextlib.contextmanager
def cpu_cgroup():
    """A function that has a process join it, and one that limits it."""
    v2 = Path("/sys/fs/cgroup/cgroup.controllers")
    if v2.exists() and "cpu" in v2.read_text().split():
        root, name = v2.parent, "cpu.max"
        control = root / "cgroup.subtree_control"
        if "cpu" not in control.read_text().split():
            control.write_text("+cpu")
    else:
        root, name = Path("/sys/fs/cgroup/cpu"), "cpu.cfs_quota_us"
    path = root / f"snapuffd-test-cpu-{os.getpid()}"
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made: {error}")

    def limit(on):
        if name == "cpu.max":
            (path / name).write_text("1000 1000000" if on else "max 1000000")
            return
        (path / "cpu.cfs_period_us").write_text("1000000")
        (path / name).write_text("1000" if on else "-1")

    try:
        if not (path / name).exists():
            pytest.skip("no limit of processor time can be set")
        yield path, limit
    finally:
        limit(False)
        host.wait_for(lambda: not (path / "cgroup.procs").read_text())
        path.rmdir()


def test_starved(writer, out):
    """1 ms of processor time a second, for all that snapuffd has started."""
    target = writer()
    with cpu_cgroup() as (path, limit):
        with survives(target, STALL_MS + 2 * SLACK_MS):
            with cli.Running(*arguments(target, out, *SLOW),
                             prefix=["sh", "-c", f'echo $$ > {path}/cgroup.procs'
                                     ' && exec "$@"', "sh"]) as running:  # fmt: skip
                wait_until_captured(running, target, out)
                limit(True)
                host.wait_for(lambda: not procstate.is_registered(target.pid))
                limit(False)
                result = running.wait(timeout=60)
        # By itself if it gets far enough for that.
        assert result.code in (cli.FAILED, -signal.SIGKILL), result.err
        assert "max-stall" in result.err, result.err
    assert_next_succeeds(target, out)


# VMs


@pytest.fixture(scope="module")
def guest(module_guests):
    """One for all: none of the tests may do it any harm."""
    guest = module_guests.start(GuestSpec())
    guest.wait_checks(1)
    return guest


def vm_arguments(guest, out, *options, stall=STALL_MS):
    return arguments(guest, out, *options, stall=stall)


@contextlib.contextmanager
def vm_survives(guest, out):
    with unharmed(guest):
        yield
    shutil.rmtree(out, ignore_errors=True)
    cli.run("dump", "--pid", guest.pid, "--out", out, "--quiet",
            ).expect(cli.DONE)  # fmt: skip


def test_pipe_that_nobody_reads(guest, out):
    with vm_survives(guest, out), pipe() as (reader, stdout):
        with cli.Running(*vm_arguments(guest, "-", "--format", "qemu",
                                       "--buffer", "16M"),
                         stdout=stdout) as running:  # fmt: skip
            os.close(stdout)
            wait_until_full(guest, reader)
            running.wait(timeout=60).expect_error(
                cli.FAILED, "output takes no more"
            )


#: In a command: what runs it, by what that is told.
DUMPER = "$(cut -d' ' -f4 /proc/$PPID/stat)"


def test_vm_dump_stopped_in_the_pause(guest, out):
    with vm_survives(guest, out):
        with cli.Running(*vm_arguments(
            guest, out, "--exec-frozen", f"kill -STOP {DUMPER}",
            "--exec-frozen-timeout", 1,
        )) as running:  # fmt: skip
            guest.wait("pause", lambda: guest.status() == "paused")
            since = time.monotonic()
            guest.wait("end of the pause", lambda: guest.status() == "running")
            stood_ms = 1000 * (time.monotonic() - since)
            running.wait(timeout=60).expect_error(cli.FAILED, "stopped")
        assert stood_ms < 1000 + STALL_MS + SLACK_MS
        assert_nothing_left(out)


def test_vm_dump_stopped_in_the_capture(guest, out):
    with vm_survives(guest, out):
        with cli.Running(*vm_arguments(guest, out, *SLOW)) as running:
            assert running.hold_when_armed(guest.pid)
            guest.wait("end of protection",
                       lambda: not procstate.is_registered(guest.pid))
            running.wait(timeout=60).expect_error(cli.FAILED, "stopped")
        assert_nothing_left(out)


def attach(pid):
    """Its main thread stands, whatever signal comes, but for SIGKILL."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert not libc.ptrace(PTRACE_ATTACH, pid, None, None), os.strerror(
        ctypes.get_errno()
    )
    os.waitpid(pid, WALL)


def test_vm_dump_that_does_not_wake(guest, out):
    """What does not give up is killed; the keeper continues the VM."""
    with vm_survives(guest, out):
        with cli.Running(*vm_arguments(
            guest, out, "--exec-frozen", "sleep 30",
            "--exec-frozen-timeout", 2,
        )) as running:  # fmt: skip
            guest.wait("pause", lambda: guest.status() == "paused")
            engine = running.engine()
            attach(engine)
            since = time.monotonic()
            guest.wait("end of the pause", lambda: guest.status() == "running")
            stood_ms = 1000 * (time.monotonic() - since)
            # Who traces it hears of its end first.
            os.waitpid(engine, WALL)
            result = running.wait(timeout=60)
        assert result.code == -signal.SIGKILL, result.err
        assert "the dump was killed" in result.err
        assert stood_ms < 2000 + STALL_MS + 2 * SLACK_MS


# QEMU does not answer


def test_qemu_hangs_for_a_while(guest, out):
    """Its `cont` comes too late for us, not for the keeper."""
    command = "kill -STOP $SNAPUFFD_PID; (sleep 3; kill -CONT $SNAPUFFD_PID) &"
    with vm_survives(guest, out):
        result = cli.run(*vm_arguments(guest, out, "--exec-frozen", command,
                                       stall=1200))  # fmt: skip
        result.expect(cli.FAILED)
        assert "no answer" in result.err, result.err
        assert_nothing_left(out)


def test_qemu_hangs_for_long(guest, out):
    """The dump ends; the keeper, which it names, stays."""
    with vm_survives(guest, out):
        try:
            with cli.Running(*vm_arguments(
                guest, out, "--exec-frozen", "kill -STOP $SNAPUFFD_PID",
            )) as running:  # fmt: skip
                host.wait_for(lambda: running.process.poll() is not None, 60)
                os.kill(guest.pid, signal.SIGCONT)
                result = running.wait()
        finally:
            os.kill(guest.pid, signal.SIGCONT)
        guest.wait("end of the pause", lambda: guest.status() == "running")
        result.expect(cli.FAILED)
        assert "tries to continue it" in result.err, result.err
        assert_nothing_left(out)


@pytest.fixture(scope="module")
def deaf(module_guests, tmp_path_factory):
    """A guest with a monitor that can be made not to answer, and how."""
    if not shutil.which("cc"):
        pytest.skip("cc is not installed")
    place = tmp_path_factory.mktemp("deaf")
    library, mode = place / "deaf.so", place / "mode"
    subprocess.run(["cc", "-shared", "-fPIC", "-D_GNU_SOURCE", "-o", library,
                    HERE / "targets/deaf.c", "-ldl"], check=True)  # fmt: skip
    old = {name: os.environ.get(name) for name in ("LD_PRELOAD", "DEAF")}
    os.environ.update(LD_PRELOAD=str(library), DEAF=str(mode))
    try:
        guest = module_guests.start(GuestSpec(), ready=False)
    finally:
        for name, value in old.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
    guest.wait_ready()
    return guest, mode


@pytest.mark.parametrize("how", ["heard", "unheard"])
def test_stop_is_not_answered(deaf, out, how):
    """Nor is anything that comes by the same connection."""
    guest, mode = deaf
    mode.write_text(how)
    try:
        with unharmed(guest):
            result = cli.run(*vm_arguments(guest, out))
            result.expect(cli.FAILED)
            assert "stop: no answer" in result.err, result.err
            guest.wait("end of the pause", lambda: guest.status() == "running")
            assert_nothing_left(out)
    finally:
        mode.unlink()
    cli.run("dump", "--pid", guest.pid, "--out", out).expect(cli.DONE)


# --max-pause of a VM


def test_pause_of_a_vm_that_would_be_too_long(deaf, out):
    """QEMU takes half a second for `stop`."""
    guest, mode = deaf
    mode.write_text("slow")
    try:
        with unharmed(guest):
            cli.run(*vm_arguments(
                guest, out, "--max-pause", 100, stall=cli.MAX_STALL_MS
            )).expect_error(cli.FAILED, "max-pause")  # fmt: skip
            assert_nothing_left(out)
        cli.run(*vm_arguments(
            guest, out, "--max-pause", 20000, stall=cli.MAX_STALL_MS
        )).expect(cli.DONE)  # fmt: skip
    finally:
        mode.unlink()


def test_pause_of_a_vm_that_was_too_long(guest, out):
    """It is looked at after each step: one of them takes a millisecond."""
    with vm_survives(guest, out):
        for _ in range(20):
            result = cli.run(*vm_arguments(
                guest, out, "--max-pause", 1, stall=cli.MAX_STALL_MS
            ))  # fmt: skip
            if result.code != cli.DONE:
                break
            shutil.rmtree(out)
        result.expect_error(cli.FAILED, "max-pause", "no answer")
        assert_nothing_left(out)


def test_a_command_is_no_part_of_max_pause(guest, out):
    cli.run(*vm_arguments(guest, out, "--exec-frozen", "sleep 6", stall=4000)
            ).expect(cli.DONE)  # fmt: skip
