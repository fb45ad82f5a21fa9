# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes that are no QEMU: started, loaded, dumped, and what gdb says of
their cores."""

import contextlib
import os
import re
import resource
import shutil
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from . import cli, host, procstate

PAGE = 4096


def require_gdb():
    if not shutil.which("gdb"):
        pytest.skip("gdb is not installed")


def tids(pid):
    return {int(tid) for tid in os.listdir(f"/proc/{pid}/task")}


def children(pid):
    """Pids of the children that are alive."""
    found = set()
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.update(map(int, path.read_text().split()))
    return found


def descendants(pid):
    found = children(pid)
    for child in list(found):
        with contextlib.suppress(FileNotFoundError):
            found |= descendants(child)
    return found


class Target:
    """A process that was started here, in a session of its own; close() ends it
    and what it started that did not leave the session.

    Each line that it prints is kept with the time at which it came.
    """

    def __init__(self, argv, stop=signal.SIGKILL, **options):
        self._stop = stop
        self.argv = list(map(str, argv))
        self.lines = []  # (time.monotonic(), text)
        self._more = threading.Condition()
        self._ended = False
        self.process = subprocess.Popen(
            self.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True, **options,
        )  # fmt: skip
        #: The process that is dumped; another one where argv only starts it.
        self.pid = self.process.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            text = line.decode(errors="replace").rstrip("\n")
            with self._more:
                self.lines.append((time.monotonic(), text))
                self._more.notify_all()
        with self._more:
            self._ended = True
            self._more.notify_all()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    @property
    def exe(self):
        return os.readlink(f"/proc/{self.pid}/exe")

    def text(self):
        return "\n".join(text for _, text in self.lines[-50:])

    def wait_line(self, pattern, since=0, timeout=30):
        """The match in the first line from number `since` on that has it."""
        deadline = time.monotonic() + timeout
        with self._more:
            while True:
                for _, text in self.lines[since:]:
                    if match := re.search(pattern, text):
                        return match
                left = deadline - time.monotonic()
                assert not self._ended and left > 0, (
                    f"{self.argv[0]}: no {pattern!r}: {self.text()}"
                )
                self._more.wait(left)

    def command(self, word, timeout=30):
        """What a line on stdin is answered with, up to "done WORD"."""
        since = len(self.lines)
        self.process.stdin.write(f"{word}\n".encode())
        self.process.stdin.flush()
        self.wait_line(f"^done {word}$", since, timeout)
        texts = [text for _, text in self.lines[since:]]
        return texts[: texts.index(f"done {word}")]

    def is_alive(self):
        """Does not reap it: nobody else gets its number before close()."""
        return self.process.returncode is None and os.waitid(
            os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT
        ) is None  # fmt: skip

    def was_job_stopped(self):
        """Whether the parent, which we are, was told of a stop or of a
        continuation."""
        return os.waitid(
            os.P_PID, self.process.pid,
            os.WSTOPPED | os.WCONTINUED | os.WNOHANG,
        ) is not None  # fmt: skip

    def close(self):
        if self.process.returncode is not None:
            return
        deadline = time.monotonic() + 10
        if self.is_alive():
            os.kill(self.process.pid, self._stop)
        while self.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdin.close()
        self._reader.join(5)


class Targets:
    """Starts targets and ends all that a test leaves."""

    def __init__(self):
        self._open = contextlib.ExitStack()

    def start(self, argv, ready=None, **options):
        target = self.adopt(Target(argv, **options))
        if ready:
            target.wait_line(ready)
        return target

    def adopt(self, thing):
        return self._open.enter_context(contextlib.closing(thing))

    def close(self):
        self._open.close()


class Load:
    """Calls `step` over and over; how long each call took."""

    def __init__(self, step, pause=0.001):
        self._step, self._pause = step, pause
        self.calls = []  # (start, end)
        self.error = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            while not self._over.wait(self._pause):
                start = time.monotonic()
                self._step()
                self.calls.append((start, time.monotonic()))
        except Exception as error:
            self.error = error

    def longest_ms(self, since, until):
        """Of the calls that were under way in that time."""
        found = [end - start for start, end in self.calls
                 if end >= since and start <= until]  # fmt: skip
        return 1000 * max(found, default=until - since)

    def wait_calls(self, n=3):
        goal = len(self.calls) + n
        host.wait_for(lambda: self.error or len(self.calls) >= goal)
        assert not self.error, f"the load failed: {self.error!r}"

    def close(self):
        self._over.set()
        self._thread.join(30)


class Ticks:
    """The same of a target that prints a line every few milliseconds: the
    longest time without one."""

    def __init__(self, target):
        self._target = target

    def longest_ms(self, since, until):
        times = [at for at, _ in self._target.lines]
        gaps = [b - a for a, b in zip(times, times[1:])
                if b >= since and a <= until]  # fmt: skip
        return 1000 * max(gaps, default=until - since)

    def wait_calls(self, n=3):
        goal = len(self._target.lines) + n
        host.wait_for(lambda: len(self._target.lines) >= goal)

    def close(self):
        pass


@dataclass(frozen=True)
class Dumped:
    figures: dict
    core: Path
    code: int
    #: Threads that were there all the time, and those that were there at all.
    tids_min: set
    tids_max: set
    since: float
    until: float
    err: str


def assert_figures(figures):
    assert figures["kind"] == "process"
    assert figures["complete"] is True
    assert 0 < figures["pause_ms"] <= figures["duration_ms"]
    assert 0 <= figures["captured_ms"] <= figures["duration_ms"]
    pages = figures["pages"]
    assert pages["total"] == pages["data"] + pages["zero"] + pages["parent"]
    assert pages["data"] > 0
    assert figures["faults"].keys() >= {"count", "p50_us", "p99_us", "max_us"}


def dump(pid, out, *options, allow=(cli.DONE,)):
    """Dumps and checks what can be said without a look into the core."""
    before, since = tids(pid), time.monotonic()
    result = cli.run("dump", "--pid", pid, "--out", out, "--json", *options,
                     timeout=60)  # fmt: skip
    until, after = time.monotonic(), tids(pid)
    if result.code not in allow:
        result.expect(allow[0])
    figures = None
    assert not out.with_name(out.name + ".partial").exists()
    if result.code == cli.DONE:
        figures = result.json()
        assert_figures(figures)
        cli.run("verify", out).expect(cli.DONE)
    else:
        assert not out.exists()
        assert result.err.startswith("snapuffd: ")
    return Dumped(figures, out / "memory.core", result.code, before & after,
                  before | after, since, until, result.err)  # fmt: skip


def assert_nothing_left(out):
    """Neither a dump nor a part of one."""
    assert not os.path.lexists(out)
    assert not os.path.lexists(f"{out}.partial")


def _core_pattern():
    return Path("/proc/sys/kernel/core_pattern").read_text().strip()


def why_no_kernel_core():
    """None: kernel_core() has one."""
    pattern = _core_pattern()
    if re.fullmatch("[^/|%]+", pattern):
        return None
    return f"the kernel's cores go elsewhere: {pattern}"


def kernel_core(target, out):
    """The core that the kernel writes of a victim, which aborts: its main
    thread goes on to where it does that."""
    if why := why_no_kernel_core():
        pytest.skip(why)
    place = Path(f"/proc/{target.pid}/cwd").resolve()
    before = set(place.iterdir())
    resource.prlimit(target.pid, resource.RLIMIT_CORE,
                     (resource.RLIM_INFINITY,) * 2)  # fmt: skip
    target.process.stdin.write(b"abort\n")
    target.process.stdin.flush()
    host.wait_for(lambda: not target.is_alive())
    core, = (path for path in set(place.iterdir()) - before
             if path.name.startswith(_core_pattern()))  # fmt: skip
    core.rename(out)
    return out


def gcore(pid, out):
    """The peer, which stops the process for all of the time.  Returns when it
    began and when it was over."""
    require_gdb()
    since = time.monotonic()
    done = subprocess.run(
        ["gdb", "-nx", "-batch", "-iex", "set debuginfod enabled off",
         "-p", str(pid), "-ex", f"generate-core-file {out}"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert out.exists(), f"gcore: {done.stdout}{done.stderr}"
    return since, time.monotonic()


def gdb(exe, core, *commands, timeout=120, env=None):
    """What gdb prints on the core, and only that: no complaint of its own."""
    require_gdb()
    argv = ["gdb", "-nx", "-batch", "-iex", "set debuginfod enabled off",
            "-iex", "set auto-load safe-path /", "-iex", "set width 0",
            "-iex", "set height 0", str(exe), str(core)]  # fmt: skip
    for command in commands:
        argv += ["-ex", command]
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=timeout, env={**os.environ, **(env or {})},
    )  # fmt: skip
    assert done.returncode == 0, f"gdb: {done.stdout}{done.stderr}"
    # Not "Unexpected size of section .reg-xstate": gdb 13 says so of the
    # kernel's own cores, too, where the processor has AMX.
    for complaint in ("not a core dump", "BFD: ", "truncated", "Failed to read",
                      "Cannot access memory", "Error while mapping"):  # fmt: skip
        assert complaint not in done.stderr, f"gdb {core}: {done.stderr}"
    return done.stdout


_THREAD = re.compile(r"^[* ] +\d+ +(?:Thread 0x[0-9a-f]+ \()?LWP (\d+)\b", re.M)
_FRAME = re.compile(r"^#(\d+) +(?:0x[0-9a-f]+ in )?([^ ]+) ?\(", re.M)


def gdb_threads(exe, core):
    text = gdb(exe, core, "info threads")
    return [int(tid) for tid in _THREAD.findall(text)]


def gdb_backtrace(exe, core, tid):
    """Names of the frames of a thread, from the innermost."""
    find = f"python [t.switch() for t in gdb.selected_inferior().threads() if t.ptid[1] == {tid}]"  # fmt: skip
    text = gdb(exe, core, find, "backtrace 64")
    return [name for _, name in _FRAME.findall(text)]


def assert_threads(dumped, found):
    """The core has the threads that the process had, the main one first."""
    assert len(found) == len(set(found)), found
    missing = dumped.tids_min - set(found)
    assert not missing, f"the core lacks threads {missing}"
    other = set(found) - dumped.tids_max
    # Some may have come and gone.
    assert not other or dumped.tids_min != dumped.tids_max, other


def assert_clean(pid):
    """Nothing of ours is in it, nobody holds it."""
    now = procstate.capture(pid)
    found = procstate.traces_left(now)
    found += [f"descriptor {link}" for link in now.fds.values()
              if "userfaultfd" in link or "snapuffd" in link]  # fmt: skip
    assert not found, f"process {pid}: " + "; ".join(found)


@contextlib.contextmanager
def unharmed(target, ignore=()):
    """After the block the process is what it was, but for changes of which
    the line has a text of `ignore`: those that the target makes by itself."""
    before = procstate.settled(target.pid)
    yield
    deadline = time.monotonic() + 5
    while True:
        found = [
            line
            for line in procstate.changes(before, procstate.capture(target.pid))
            if not any(text in line for text in ignore)
        ]
        if not found or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    assert not found, f"{target.argv[0]} was changed: " + "; ".join(found)
    assert_clean(target.pid)
    assert target.is_alive()
    assert not target.was_job_stopped()
