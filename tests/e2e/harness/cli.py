# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs the program under test, which the environment names in SNAPUFFD."""

import contextlib
import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from . import procstate

# Exit codes.
DONE = 0
FAILED = 1  # the target runs on unharmed
USAGE = 2
REFUSED = 3  # target or host can't be snapshotted
INCONSISTENT = 4  # discarded


def program():
    path = os.environ.get("SNAPUFFD")
    if not path:
        pytest.skip("SNAPUFFD does not name the program")
    assert os.access(path, os.X_OK), f"{path} cannot be executed"
    return str(Path(path).resolve())


#: Machines that run tests have much else to do, and what a watchdog may see
#: there is no fault.  Tests of stalls say --max-stall themselves.
MAX_STALL_MS = 30000


def arguments(args):
    args = [*map(str, args)]
    if args[:1] == ["dump"] and "--max-stall" not in args:
        args[1:1] = ["--max-stall", str(MAX_STALL_MS)]
    return args


@dataclass(frozen=True)
class Result:
    args: list
    code: int
    out: bytes
    err: str

    def json(self):
        found = json.loads(self.out)
        assert isinstance(found, dict), f"not one object: {found!r}"
        return found

    def expect(self, code):
        assert self.code == code, (
            f"{' '.join(self.args)}: exit code {self.code}, not {code}; "
            f"stderr: {self.err!r}"
        )
        return self

    def expect_error(self, code, *words):
        """One clear line on stderr, which has one of the words, if any."""
        self.expect(code)
        lines = self.err.splitlines()
        what = f"{' '.join(self.args)}: stderr {self.err!r}"
        assert len(lines) == 1, f"{what}: {len(lines)} lines, not one"
        assert lines[0].startswith("snapuffd: "), f"{what}: no prefix"
        assert len(lines[0]) > len("snapuffd: ") + 8, f"{what}: says nothing"
        if words:
            assert any(word.lower() in lines[0].lower() for word in words), (
                f"{what}: none of {words}"
            )
        return self


def run(*args, timeout=120, prefix=(), exe=None, env=None):
    """`prefix` is a command that runs the program, `exe` a copy of it, `env`
    what is added to the environment."""
    argv = [*map(str, prefix), str(exe or program()), *arguments(args)]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True,
            timeout=timeout, env={**os.environ, **(env or {})},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise AssertionError(f"{' '.join(argv)}: still running after "
                             f"{timeout} s") from None  # fmt: skip
    return Result(argv, done.returncode, done.stdout,
                  done.stderr.decode(errors="replace"))  # fmt: skip


class Running:
    """A verb under way, to be stopped, signalled and waited for.

    A dump is two processes: the front, which is started and signalled, and the
    engine behind it, which works.  Held (SIGSTOP) that one is at a known step
    for as long as a test needs.
    """

    def __init__(self, *args, stdout=subprocess.PIPE, prefix=(), exe=None,
                 env=None):  # fmt: skip
        self.argv = [*map(str, prefix), str(exe or program()), *arguments(args)]
        self.process = subprocess.Popen(
            self.argv, stdin=subprocess.DEVNULL,
            stdout=stdout, stderr=subprocess.PIPE,
            env={**os.environ, **(env or {})},
        )  # fmt: skip
        self._engine = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()

    @property
    def pid(self):
        return self.process.pid

    def signal(self, number):
        self.process.send_signal(number)

    def engine(self, timeout=30):
        """The pid of the process behind, while there is one; None when there
        is none any more."""
        deadline = time.monotonic() + timeout
        while self._engine is None and time.monotonic() < deadline:
            self._engine = procstate.child_named(self.pid, "snapuffd-engine")
            if self._engine is None and self.process.poll() is not None:
                break
        return self._engine

    def hold_when_armed(self, target_pid, timeout=30):
        """Stops it while it has the target's memory registered.  False when
        it was over before it could be caught."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                return False
            if procstate.is_registered(target_pid):
                return (self._stop_engine()
                        and procstate.is_registered(target_pid))
        raise AssertionError(f"{' '.join(self.argv)}: never armed")

    def _stop_engine(self):
        """Whether it stands; it may just have ended."""
        engine = self.engine()
        try:
            os.kill(engine, signal.SIGSTOP)
            while not procstate.all_stopped(engine):
                time.sleep(0.001)
        except (TypeError, OSError):
            return False
        return True

    def resume(self):
        with contextlib.suppress(TypeError, ProcessLookupError):
            os.kill(self.engine(), signal.SIGCONT)

    def wait(self, timeout=120):
        try:
            out, err = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{' '.join(self.argv)}: still running after {timeout} s"
            ) from None
        return Result(self.argv, self.process.returncode, out or b"",
                      err.decode(errors="replace"))  # fmt: skip
