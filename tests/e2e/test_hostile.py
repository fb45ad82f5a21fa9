# SPDX-License-Identifier: GPL-2.0-or-later
"""A target that wants to harm its dumper: each dump ends, with an image or one
line, in bounded memory, and writes nothing but its image."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness import cli

TARGETS = Path(__file__).parent / "targets"

#: KiB that a dump may have at once: its buffers, and texts of the target.
MEMORY_MAX = 512 * 1024


class Target:
    def __init__(self, script, *args):
        self.process = subprocess.Popen(
            [sys.executable, TARGETS / script, *map(str, args)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def __enter__(self):
        assert self.process.stdout.readline() == b"ready\n"
        return self.process

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()


def dump(pid, out, *options, timeout=120):
    """(result, most memory in KiB); the dump ends by itself."""
    argv = [cli.program(), "dump", "--pid", str(pid), "--out", str(out),
            *map(str, options)]  # fmt: skip
    with open(f"{out}.err", "w+b") as err:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=err)  # fmt: skip
        try:
            _, status, usage = wait4(process, timeout)
        finally:
            process.kill()
        err.seek(0)
        text = err.read().decode()
    os.unlink(f"{out}.err")
    code = os.waitstatus_to_exitcode(status)
    return cli.Result(argv, code, b"", text), usage.ru_maxrss


def wait4(process, timeout):
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return pid, status, usage
        time.sleep(0.02)
    raise AssertionError(f"the dump still runs after {timeout} s")


def assert_only(directory, *names):
    assert {path.name for path in directory.iterdir()} == set(names)


@pytest.mark.parametrize(
    "mode",
    ["silent", "garbage", "endless", "deep", "events", "drip", "error",
     "overlap", "enormous", "absent", "names", "many"],
)  # fmt: skip
def test_monitor(tmp_path, mode):
    sock = tmp_path / "qmp"
    work = tmp_path / "work"
    work.mkdir()
    with Target("hostile_qmp.py", sock, mode) as target:
        result, memory = dump(target.pid, work / "image", "--as", "qemu",
                              "--qmp", sock)  # fmt: skip
        assert target.poll() is None
    assert result.code in (cli.FAILED, cli.REFUSED), result
    result.expect_error(result.code)
    assert "\x1b" not in result.err and len(result.err) < 2000
    assert memory < MEMORY_MAX, f"{memory} KiB"
    assert_only(work)


#: Of each kind of process, what must be said of what was cut.
CUT = {"cmdline": ["cmdline"], "environ": ["environ"],
       "empty": ["cmdline", "environ"]}  # fmt: skip


@pytest.mark.parametrize("kind", ["maps", "names", "threads", "fds", *CUT])
def test_process(tmp_path, kind):
    work, files = tmp_path / "work", tmp_path / "files"
    work.mkdir()
    files.mkdir()
    with Target("hostile_names.py", kind, files) as target:
        result, memory = dump(target.pid, work / "image")
        assert target.poll() is None
    result.expect(cli.DONE)
    assert "\x1b" not in result.err
    for name in CUT.get(kind, ()):
        assert f"/{name} is too long, its first " in result.err, result
    assert memory < MEMORY_MAX, f"{memory} KiB"
    assert_only(work, "image")
    assert_only(files)
    cli.run("verify", work / "image").expect(cli.DONE)
    cli.run("inspect", work / "image", "--json").expect(cli.DONE)
