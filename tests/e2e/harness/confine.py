# SPDX-License-Identifier: GPL-2.0-or-later
"""What keeps intruders out of a process, from outside of it."""

import contextlib
import ctypes
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from . import cli

SOURCES = Path(__file__).resolve().parents[1] / "targets"

PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_DETACH = 0x4206, 0x4207, 17
WALL = 0x40000000

#: Argument vectors that run a command: in namespaces of its own, as root there.
NAMESPACES = ("unshare", "-Umn", "--map-root-user")
PID_NAMESPACE = ("unshare", "-Umpnf", "--mount-proc", "--map-root-user")
#: Nothing in the file system can be changed.
READ_ONLY = ("unshare", "-m", "sh", "-c",
             'mount -o remount,bind,ro / && exec "$0" "$@"')  # fmt: skip
NO_NEW_PRIVS = ("setpriv", "--no-new-privs")
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


def without(*capabilities):
    """Root, but for those: "sys_admin"."""
    return ("setpriv",
            "--bounding-set=" + ",".join(f"-{c}" for c in capabilities))  # fmt: skip


def require_namespaces():
    for argv in (PID_NAMESPACE, READ_ONLY):
        if subprocess.run([*argv, "true"], capture_output=True).returncode:
            pytest.skip("no namespaces")


def build_denied(place):
    """The program that puts a seccomp filter around another (targets/)."""
    exe = place / "denied"
    subprocess.run(["cc", "-O1", "-std=gnu17", "-D_GNU_SOURCE", "-Wall",
                    "-Wextra", "-o", exe, SOURCES / "denied.c"],
                   check=True)  # fmt: skip
    return exe


def _ptrace(request, tid):
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.restype = ctypes.c_long
    ptrace.argtypes = [ctypes.c_long] * 4
    if ptrace(request, tid, 0, 0):
        raise OSError(ctypes.get_errno(), f"ptrace {request:#x} of {tid}")


@contextlib.contextmanager
def traced(tid):
    """We are the debugger; the thread runs meanwhile."""
    _ptrace(PTRACE_SEIZE, tid)
    try:
        yield
    finally:
        _ptrace(PTRACE_INTERRUPT, tid)
        os.waitpid(tid, WALL)
        _ptrace(PTRACE_DETACH, tid)


class Capable:
    """A copy of the program that somebody else runs, with capabilities of the
    file, and a directory of theirs for what it writes."""

    def __init__(self, uid=65534):
        self.place = Path(tempfile.mkdtemp(prefix="snapuffd-caps-"))
        self.place.chmod(0o755)
        self.exe = shutil.copy(cli.program(), self.place / "snapuffd")
        self.exe.chmod(0o755)
        self.out = self.place / "theirs" / "image"
        self.out.parent.mkdir()
        os.chown(self.out.parent, uid, uid)

    def run(self, capabilities, *args):
        """`capabilities` are "cap_sys_ptrace" and the like."""
        names = ",".join(sorted(capabilities))
        done = subprocess.run(
            ["setcap", f"{names}+ep" if names else "=", self.exe],
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            pytest.skip(f"no file capabilities: {done.stderr.strip()}")
        return cli.run(*args, prefix=NOBODY, exe=self.exe)

    def dump(self, capabilities, pid, *options):
        return self.run(capabilities, "dump", "--pid", pid, "--out", self.out,
                        *options)  # fmt: skip

    def close(self):
        shutil.rmtree(self.place)
