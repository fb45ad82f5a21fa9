# SPDX-License-Identifier: GPL-2.0-or-later
"""A dump is two processes: the front, which the operator sees and may signal
or kill, and the engine behind it, which works on the target."""

import contextlib
import fcntl
import os
import pty
import resource
import shutil
import signal
import subprocess
import tempfile
import termios
import time
from pathlib import Path

import pytest
from harness import cli, host, process, procstate

#: Some seconds of a dump.
SLOW = ("--rate-limit", "1")
NOBODY = 65534


@pytest.fixture
def target(start):
    return start("wait", "journal=1,0,256")


def is_gone(pid):
    """Ended, and waited for."""
    return not os.path.exists(f"/proc/{pid}")


def wait_under_way(dump, out):
    """The pid of an engine that works, and will for a while."""
    host.wait_for(lambda: os.path.exists(f"{out}.partial/memory.core")
                  or dump.process.poll() is not None)  # fmt: skip
    assert dump.process.poll() is None, dump.wait()
    return dump.engine()


def begin(target, out, *options, **more):
    return cli.Running("dump", "--pid", target.pid, "--out", out, *SLOW,
                       *options, **more)  # fmt: skip


def assert_let_go(target, out):
    """Right when the engine has ended: none of it is left."""
    process.assert_nothing_left(out)
    process.assert_clean(target.pid)
    target.command("check")


# who is who


def test_only_the_front_is_found_by_name(target, out):
    """killall(1) goes by comm, pidof(8) by argv[0] as well."""
    with begin(target, out) as dump:
        engine = wait_under_way(dump, out)
        front = dump.pid
        names = {pid: Path(f"/proc/{pid}/comm").read_text().strip()
                 for pid in (front, engine)}  # fmt: skip
        argv0 = Path(f"/proc/{engine}/cmdline").read_bytes().split(b"\0")[0]
        assert names == {front: "snapuffd", engine: "snapuffd-engine"}
        assert os.path.basename(argv0) != b"snapuffd"
        assert os.getsid(engine) == os.getpgid(engine) == engine
        assert os.getsid(front) == os.getsid(0)
        if shutil.which("pidof"):
            found = subprocess.run(["pidof", "snapuffd"], capture_output=True)
            pids = set(map(int, found.stdout.split()))
            assert front in pids and engine not in pids


def test_front_has_no_rights_and_none_of_the_output(target):
    """It waits; a reader is to see the end even if the front is stopped."""
    reader, writer = os.pipe()
    with open(reader, "rb") as stdout, begin(
        target, "-", "--format", "core", stdout=writer
    ) as dump:
        os.close(writer)
        status = Path(f"/proc/{dump.pid}/status")
        for name in ("CapEff", "CapPrm"):
            host.wait_for(lambda: f"{name}:\t{0:016x}\n" in status.read_text())
        dump.signal(signal.SIGSTOP)
        assert stdout.read(4) == b"\x7fELF"
        while stdout.read(1 << 20):
            pass
        assert dump.process.poll() is None
        dump.signal(signal.SIGCONT)
        dump.wait().expect(cli.DONE)


# how it ends


def test_exit_codes_are_passed_on(target, out):
    dumped = cli.run("dump", "--pid", target.pid, "--out", out, "--json")
    assert dumped.expect(cli.DONE).json()["complete"] is True
    again = cli.run("dump", "--pid", target.pid, "--out", out)
    again.expect_error(cli.FAILED, "exists already")
    nobody = cli.run("dump", "--pid", 2, "--out", f"{out}-2")
    nobody.expect_error(cli.REFUSED, "kernel thread")
    cli.run("dump", "--pid", "x", "--out", out).expect(cli.USAGE)


def test_exit_code_where_children_are_not_waited_for(target, out):
    """Who starts it with SIGCHLD ignored, as some daemons do."""
    def ignore():
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    for code in (cli.DONE, cli.FAILED):
        done = subprocess.run(
            [cli.program(), "dump", "--pid", str(target.pid), "--out", out],
            preexec_fn=ignore, capture_output=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == code, done.stderr


def test_no_process_to_be_had(target):
    """One line, and nothing was touched."""
    def limit():
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))

    with tempfile.TemporaryDirectory(prefix="snapuffd-nobody-") as place:
        os.chmod(place, 0o777)
        exe = shutil.copy(cli.program(), place)
        done = subprocess.run(
            [exe, "dump", "--pid", str(target.pid), "--out", f"{place}/image"],
            preexec_fn=limit, capture_output=True, timeout=60,
            # Its check for leaks wants a process as well.
            env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},
        )  # fmt: skip
        result = cli.Result(["dump"], done.returncode, done.stdout,
                            done.stderr.decode())  # fmt: skip
        result.expect_error(cli.FAILED, "Resource temporarily unavailable")
        assert os.listdir(place) == ["snapuffd"]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signals_are_handed_on(target, out, name):
    with process.unharmed(target), begin(target, out) as dump:
        engine = wait_under_way(dump, out)
        dump.signal(getattr(signal, name))
        dump.wait().expect_error(cli.FAILED, "interrupted")
        assert is_gone(engine)
        assert_let_go(target, out)


@pytest.mark.parametrize("name", ["SIGKILL", "SIGQUIT", "SIGUSR1"])
def test_front_dies(target, out, name):
    """However it does, the engine gives up in good order."""
    number = getattr(signal, name)
    with process.unharmed(target), begin(target, out) as dump:
        engine = wait_under_way(dump, out)
        dump.signal(number)
        assert dump.process.wait(20) == -number
        # The last to hold it is the engine.
        assert b"interrupted" in dump.process.stderr.read()
        host.wait_for(lambda: is_gone(engine))
        assert_let_go(target, out)
    cli.run("dump", "--pid", target.pid, "--out", out).expect(cli.DONE)


def test_front_dies_before_it_is_seen(target, out):
    """At once, when the engine may not even have asked to be told."""
    with process.unharmed(target):
        for n in range(12):
            with begin(target, out) as dump:
                time.sleep(0.0005 * n)
                dump.signal(signal.SIGKILL)
                dump.wait()
            assert_let_go(target, out)


def test_engine_is_killed(target, out):
    """The front ends as the engine did, with a line of its own."""
    with begin(target, out) as dump:
        engine = wait_under_way(dump, out)
        os.kill(engine, signal.SIGKILL)
        result = dump.wait()
    result.expect_error(-signal.SIGKILL, "killed by signal 9")
    assert is_gone(engine)
    process.assert_clean(target.pid)
    target.command("check")
    cli.run("dump", "--pid", target.pid, "--out", out).expect(cli.DONE)


# stopped


def test_stopped_front_stops_nothing(target, out):
    with begin(target, out) as dump:
        engine = wait_under_way(dump, out)
        dump.signal(signal.SIGSTOP)
        os.waitid(os.P_PID, dump.pid, os.WSTOPPED | os.WNOWAIT)
        host.wait_for(out.exists)
        host.wait_for(
            lambda: set(procstate.thread_states(engine)) == {"Z"}
        )
        assert dump.process.poll() is None
        dump.signal(signal.SIGCONT)
        dump.wait().expect(cli.DONE)
    assert is_gone(engine)


def test_stopped_front_can_be_killed(target, out):
    with process.unharmed(target), begin(target, out) as dump:
        wait_under_way(dump, out)
        dump.signal(signal.SIGSTOP)
        dump.signal(signal.SIGKILL)
        dump.wait().expect(-signal.SIGKILL)
        assert_let_go(target, out)


class Terminal:
    """A command in the foreground of a terminal of its own."""

    def __init__(self, *argv):
        self._main, self._side = pty.openpty()
        self._text = b""
        self.process = subprocess.Popen(
            list(map(str, argv)), stdin=self._side, stdout=self._side,
            stderr=self._side, preexec_fn=self._lead,
        )  # fmt: skip
        os.set_blocking(self._main, False)

    @staticmethod
    def _lead():
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        # Who is in the background may not write to it.
        mode = termios.tcgetattr(0)
        mode[3] |= termios.TOSTOP
        termios.tcsetattr(0, termios.TCSANOW, mode)

    def type(self, key):
        os.write(self._main, key)

    def wait_text(self, text):
        host.wait_for(lambda: self._shows(text))

    def _shows(self, text):
        with contextlib.suppress(OSError):
            self._text += os.read(self._main, 1 << 16)
        return text in self._text

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._main)
        os.close(self._side)


def test_terminal_ctrl_c(target, out, targets):
    """The line of the progress comes from the engine, which has no terminal;
    the key goes to the front."""
    terminal = targets.adopt(
        Terminal(cli.program(), "dump", "--pid", target.pid, "--out", out,
                 *SLOW)
    )  # fmt: skip
    terminal.wait_text(b"captured ")
    terminal.type(b"\3")
    terminal.wait_text(b"interrupted")
    assert terminal.process.wait(20) == cli.FAILED
    assert_let_go(target, out)


def test_terminal_ctrl_z(target, out, targets):
    """The shell has its prompt back, and the target need not wait for `fg`."""
    if not shutil.which("bash"):
        pytest.skip("bash is not installed")
    script = (
        f'set -m; "$0" dump --pid {target.pid} --out "{out}" {" ".join(SLOW)};'
        ' echo code $?; until [ -e "$1" ]; do sleep 0.1; done; fg; echo code $?'
    )
    terminal = targets.adopt(
        Terminal("bash", "-c", script, cli.program(), out)
    )
    terminal.wait_text(b"captured ")
    terminal.type(b"\x1a")
    terminal.wait_text(b"code 148")  # 128 + SIGTSTP
    terminal.wait_text(b"code 0")
    target.command("check")


# one after the other


def test_second_dump_is_refused(target, out):
    with begin(target, out) as dump:
        engine = wait_under_way(dump, out)
        cli.run("dump", "--pid", target.pid, "--out", f"{out}-2").expect_error(
            cli.REFUSED, f"process {engine} is dumping it already"
        )
        process.assert_nothing_left(f"{out}-2")
        dump.wait().expect(cli.DONE)


def test_second_dump_waits_for_one_that_was_killed(target, out):
    with begin(target, out) as dump:
        engine = wait_under_way(dump, out)
        os.kill(engine, signal.SIGSTOP)  # a slow one
        dump.signal(signal.SIGKILL)
        dump.process.wait(20)
        with cli.Running("dump", "--pid", target.pid, "--out", out) as second:
            time.sleep(1)
            assert second.process.poll() is None
            os.kill(engine, signal.SIGCONT)
            second.wait().expect(cli.DONE)
    cli.run("verify", out).expect(cli.DONE)
    target.command("check")


def test_second_dump_does_not_wait_for_ever(target, out):
    with begin(target, out) as dump:
        engine = wait_under_way(dump, out)
        os.kill(engine, signal.SIGSTOP)
        dump.signal(signal.SIGKILL)
        dump.process.wait(20)
        try:
            second = cli.run("dump", "--pid", target.pid, "--out", f"{out}-2")
            second.expect_error(
                cli.REFUSED, f"process {engine}, of a dump that was killed"
            )
        finally:
            os.kill(engine, signal.SIGCONT)
