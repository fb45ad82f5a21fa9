# SPDX-License-Identifier: GPL-2.0-or-later
"""snapuffd-inject: the program with points at which it fails, dies or stalls
(src/base/inject.h), and what it is let loose on."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from . import cli, host, process, procstate, victim
from .guest import GuestSpec
from .process import Target
from .qmp import Qmp
from .scribbler import Scribbler

#: How long a target may take to answer; one that is held never does.
ANSWER_S = 20


def program():
    """Beside the program under test."""
    path = Path(cli.program())
    path = path.with_name(path.name + "-inject")
    if not path.exists():
        pytest.skip(f"{path} was not built (meson: -Dtests=enabled)")
    return path


def points():
    """Name -> whether it can return an error."""
    done = subprocess.run([program()], capture_output=True, text=True,
                          env={**os.environ, "SNAPUFFD_INJECT": "list"},
                          check=True)  # fmt: skip
    lines = [line.split() for line in done.stdout.splitlines()]
    return {words[0]: words[1:] == ["fails"] for words in lines}


def run(order, *args, timeout=120):
    """What the program did, and the points that it came to."""
    with tempfile.TemporaryDirectory() as place:
        log = Path(place) / "log"
        result = cli.run(
            *args, exe=program(), timeout=timeout,
            env={"SNAPUFFD_INJECT": order, "SNAPUFFD_INJECT_LOG": str(log)},
        )  # fmt: skip
        # Whoever outlives what was killed gets to points of its own.
        host.wait_for(lambda: not left_running(), timeout=60)
        return result, log.read_text().split() if log.exists() else []


def left_running():
    """Processes of the program."""
    found, exe = [], str(program())
    for path in Path("/proc").glob("[0-9]*/exe"):
        with contextlib.suppress(OSError):
            if os.readlink(path) == exe:
                found.append(int(path.parent.name))
    return found


def _waiting(pid):
    """Names of the threads, by number: a wait that has ended ends its own."""
    found = {}
    for tid in process.tids(pid):
        with contextlib.suppress(OSError):
            found[tid] = Path(f"/proc/{pid}/task/{tid}/comm").read_text().strip()
    return found


class Scene:
    """Something to be dumped in a certain way, over and over.

    `before` and `after` stand around each dump: nothing has changed; `end`
    comes last.
    """

    options = ()
    #: Lines of procstate.changes() that are no fault.
    but = None
    #: Dumps until it is known to which points they come.
    n_looks = 2
    #: Codes of a dump into which nothing is injected.
    allow = (cli.DONE,)

    def __init__(self, scenes):
        self.scenes, self.stack = scenes, contextlib.ExitStack()
        self.start()
        self.states = [procstate.settled(pid) for pid in self.pids()]

    def start(self):
        raise NotImplementedError

    def pids(self):
        return [self.target.pid]

    def args(self, out, options=None):
        """On a busy machine a target may take its time to stop."""
        return ["dump", "--pid", self.target.pid, "--out", out, "--max-pause",
                20000, *(self.options if options is None else options)]  # fmt: skip

    def next_args(self, out):
        """Of the dump that must succeed after that."""
        return self.args(out)

    def before(self):
        self.states = [procstate.capture(pid) for pid in self.pids()]

    def after(self, killed):
        for state in self.states:
            procstate.assert_same(state, patience=10, but=self.but)
        self.check(killed)

    def check(self, killed):
        """It runs on, quickly, and its memory is whole."""

    def end(self):
        """Ends what was started for this dump."""

    def close(self):
        """What is checked at the end of all dumps."""


class Victim(Scene):
    words = ("journal=2", "registers", "wait")
    start_options = {}

    def start(self):
        exe = self.scenes.victim_exe
        self.target = self.stack.enter_context(contextlib.closing(
            Target([exe, *self.words], **self.start_options)))  # fmt: skip
        self.target.wait_line("^ready$")
        self.threads = _waiting(self.target.pid)
        self.interrupted = []
        self.was_killed = False

    def check(self, killed):
        """It answers, and counts on."""
        step = self.target.command("check", ANSWER_S)
        host.wait_for(
            lambda: self.target.command("check", ANSWER_S) != step, ANSWER_S
        )

    def after(self, killed):
        ended = self.find_ended()
        assert killed or not ended, f"waits that ended: {ended}"
        self.interrupted += ended
        self.was_killed |= killed
        # That wait closes what it has waited for.
        self.but = "eventpoll" if "epoll_wait" in ended else None
        super().after(killed)

    def find_ended(self):
        """A wait that ends is seen by its thread's end.  Where the dumper dies
        within the microseconds of a stop the kernel itself ends it."""
        now = _waiting(self.target.pid)
        return [self.threads.pop(tid)
                for tid in self.threads.keys() - now.keys()]  # fmt: skip

    def close(self):
        if "wait" not in self.words:
            return
        rows = victim.rows(self.target.command("wake", 60))
        for name, (word, values) in rows.items():
            if word == "none":
                continue
            if self.was_killed and word == "early" and values["got"] == -4:
                self.interrupted += {name} - set(self.interrupted)
                continue
            assert word == "woken", f"{name}: {word} {values}"
            assert values["got"] == values["want"], f"{name}: {values}"


class Core(Victim):
    words = ("journal=1", "registers")
    options = ("--format", "core")


class Cgroup(Victim):
    words = ("journal=1", "registers")
    options = ("--freeze", "cgroup")

    def start(self):
        self.cgroup = self.stack.enter_context(host.cgroup())
        self.start_options = {
            "preexec_fn": lambda: host.join(self.cgroup, os.getpid())
        }
        super().start()

    def check(self, killed):
        assert (self.cgroup / "cgroup.freeze").read_text().strip() == "0"
        super().check(killed)


class Tree(Victim):
    words = ("journal=1,2",)
    options = ("--tree",)

    def pids(self):
        return [self.target.pid,
                *sorted(process.descendants(self.target.pid))]  # fmt: skip


class Holding(Victim):
    """Memory comes and goes."""

    words = ("journal=1", "registers", "churn=unmap,discard")
    options = ("--hold-unmaps", "yes")
    allow = (cli.DONE, cli.INCONSISTENT)


class Shy(Scene):
    """A program that may not call userfaultfd(2)."""

    TICKS = """
import time
while True:
    print("tick", flush=True)
    time.sleep(0.01)
"""

    def start(self):
        if Path("/proc/sys/vm/unprivileged_userfaultfd").read_text() == "1\n":
            pytest.skip("vm.unprivileged_userfaultfd is set")
        self.target = self.stack.enter_context(contextlib.closing(Target(
            ["/usr/bin/python3", "-c", self.TICKS], user=65534, group=65534,
            extra_groups=[], cwd="/")))  # fmt: skip
        self.target.wait_line("tick")

    def check(self, killed):
        goal = len(self.target.lines) + 10
        host.wait_for(lambda: len(self.target.lines) >= goal, ANSWER_S)


class Vm(Scene):
    """With a disk that goes on in a new file, and a command in the pause."""

    options = ("--disks", "overlay", "--exec-frozen", "true")
    next_options = ()
    n_looks = 1
    but = ".snapuffd-"

    def start(self):
        self.target = self.scenes.guest()

    def jobs(self):
        with self.target.qmp() as qmp:
            return qmp.command("query-jobs")

    def next_args(self, out):
        """Each overlay has the one before below it: not more than needed."""
        return self.args(out, None if self.jobs() else self.next_options)

    def check(self, killed):
        guest = self.target
        began = time.monotonic()
        assert guest.status() == "running"
        assert time.monotonic() - began < ANSWER_S
        # The socket that a dump uses.
        with Qmp(guest.qmp_path) as qmp:
            assert qmp.command("query-fdsets") == []
        # One that the next dump with an overlay dismisses.
        assert all(killed and job["status"] == "concluded"
                   for job in self.jobs())  # fmt: skip
        torn = [v for v in guest.verdicts() if not v.clean]
        assert not torn, f"the guest's memory is torn: {torn[0]}"
        if self.scenes.is_thorough:
            guest.wait_checks(1)
        assert guest.stderr() == ""

    def close(self):
        self.target.wait_checks(2)


class Stream(Vm):
    options = next_options = ("--format", "qemu")


class Written(Vm):
    """Somebody else writes to its memory, too, and the guest answers."""

    options = next_options = ("--writers", "auto")

    def start(self):
        super().start()
        self.other = None

    def pids(self):
        return [self.target.pid, *([self.other.pid] if self.other else [])]

    def before(self):
        self.other = Scribbler(self.target.shm_dir / "ram")
        super().before()

    def check(self, killed):
        super().check(killed)
        self.other.goes_on()

    def end(self):
        self.other.close()
        self.other = None


#: In the order in which one is chosen for a point that several come to.
SCENES = {
    "process": Victim,
    "shy": Shy,
    "holding": Holding,
    "core": Core,
    "cgroup": Cgroup,
    "tree": Tree,
    "vm": Vm,
    "stream": Stream,
    "written": Written,
}


class Scenes:
    """One at a time, for all of them are busy; but the guest of those that need
    one takes its time to boot and stays."""

    def __init__(self, guests, victim_exe, is_thorough):
        self.victim_exe, self.is_thorough = victim_exe, is_thorough
        #: Name of a scene -> waits that ended when a dumper was killed.
        self.interrupted = {}
        self._guests, self._guest = guests, None
        self._key = self._scene = None
        self._points = {}

    def guest(self):
        if not self._guest:
            self._guest = self._guests.start(GuestSpec(
                ram="file", disk="qcow2", append="guest.echo=1",
                judge={"mib": 32, "rate": 2000}))  # fmt: skip
            self._guest.wait("echo", lambda: "echo: ready"
                             in self._guest.serial())  # fmt: skip
        return self._guest

    def get(self, name, action):
        """Processes that had a dumper killed are others than those that had
        not: a wait of them may have ended."""
        key = name, action == "kill" and issubclass(SCENES[name], Victim)
        if key != self._key:
            self.end()
            self._scene = SCENES[name](self)
            self._key = key
        return self._scene

    def coming_to(self, point):
        """Names of the scenes that do."""
        return (name for name in SCENES if point in self._look(name))

    def _look(self, name):
        if name not in self._points:
            self._points[name] = self._find_points(self.get(name, "error"))
        return self._points[name]

    @staticmethod
    def _find_points(scene):
        found = set()
        with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
            for i in range(scene.n_looks):
                scene.before()
                try:
                    out = Path(place) / f"out{i}"
                    result, log = run("", *scene.args(out))
                finally:
                    scene.end()
                assert result.code in scene.allow, result
                found.update(log)
        return found

    def end(self, is_well=True):
        """Looks at all of it once more; where something is wrong with it, the
        next case has another."""
        scene, self._scene, self._key = self._scene, None, None
        if not scene:
            return
        try:
            if is_well:
                scene.close()
        finally:
            scene.stack.close()
        ended = getattr(scene, "interrupted", None)
        if ended:
            self.interrupted.setdefault(type(scene).__name__, []).extend(ended)
        if not is_well and scene.target is self._guest:
            self._guest.close()
            self._guest = None


def remove(out):
    for path in (out, Path(f"{out}.partial")):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
