# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM that `snapuffd restore` has started, looked at like any other guest."""

import contextlib
import os
import signal
import time
from pathlib import Path

from . import cli, procstate
from .guest import Guest


class Clone(Guest):
    """Runs the verb, which must succeed.  `report` is what it says."""

    def __init__(self, spec, image, *options, argv=(), prefix=()):
        tail = ["--", *argv] if argv else []
        self.result = cli.run("restore", image, "--json", *options, *tail,
                              prefix=prefix).expect(cli.DONE)  # fmt: skip
        self.report = self.result.json()
        self.spec = spec
        self.dir = Path(self.report["dir"])
        self.shm_dir = None
        self.dimm_addr = None

    @property
    def pid(self):
        return self.report["pid"]

    def alive(self):
        return procstate.is_alive(self.pid)

    def wait(self, what, probe, timeout=30):
        self.process = Ended(self)
        return super().wait(what, probe, timeout)

    def stderr(self):
        return (self.dir / "qemu.log").read_text(errors="replace")

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while self.alive() and time.monotonic() < deadline:
            time.sleep(0.01)


class Ended:
    """What Guest.wait() asks of a process of its own."""

    returncode = "no child of ours"

    def __init__(self, clone):
        self._clone = clone

    def poll(self):
        return None if self._clone.alive() else 1
