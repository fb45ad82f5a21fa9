# SPDX-License-Identifier: GPL-2.0-or-later
"""A process that has a guest's RAM mapped and writes to it in step with the
guest (tests/guest/echo.c)."""

import ctypes
import signal
import subprocess
from pathlib import Path

from .guest import PR_SET_PDEATHSIG

SCRIBBLER = Path(__file__).parents[1] / "targets" / "scribbler.py"


def die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class Scribbler:
    def __init__(self, file, *args):
        self.process = subprocess.Popen(
            ["/usr/bin/python3", SCRIBBLER, file, *args],
            stdout=subprocess.PIPE, preexec_fn=die_with_parent)  # fmt: skip
        self.cells = [int(n) for n in self.process.stdout.readline().split()]
        self.pid = self.process.pid
        self.file = file

    def goes_on(self):
        """It, and the guest that answers it."""
        with open(self.file, "rb") as ram:
            start = rounds(ram, self.cells)[-1]
            while rounds(ram, self.cells)[-1] < start + 20:
                assert self.process.poll() is None

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def rounds(file, cells):
    """What the cells hold, in the order in which they are written."""
    words = []
    for cell in cells[::2] + cells[1::2]:
        file.seek(cell + 16)
        words.append(int.from_bytes(file.read(8), "little"))
    return words
