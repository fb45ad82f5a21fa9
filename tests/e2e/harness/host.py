# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests need of the machine; what is not there is a reason to skip."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

_HUGE = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
_FREE = _HUGE.with_name("free_hugepages")


def require_root():
    if os.geteuid():
        pytest.skip("needs root")


@contextlib.contextmanager
def huge_pages(mib):
    """So many MiB more of 2 MiB pages, given back at the end."""
    require_root()
    if not _HUGE.exists():
        pytest.skip("this kernel has no 2 MiB hugetlb pages")
    before = int(_HUGE.read_text())
    wanted = before + mib // 2
    try:
        _HUGE.write_text(str(wanted))
        if int(_HUGE.read_text()) < wanted:
            pytest.skip(f"no {mib} MiB in hugetlb pages to be had")
        yield
    finally:
        _HUGE.write_text(str(before))


def free_huge_pages():
    return int(_FREE.read_text())


@contextlib.contextmanager
def _mounted(what, *arguments):
    path = Path(tempfile.mkdtemp(prefix=f"snapuffd-{what}-"))
    try:
        done = subprocess.run(
            ["mount", "-t", what, *arguments, path],
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            pytest.skip(f"no {what} can be mounted: {done.stderr.strip()}")
        try:
            yield path
        finally:
            subprocess.run(["umount", "-l", path], check=True)
    finally:
        path.rmdir()


@contextlib.contextmanager
def tmpfs(options):
    """The path of a tmpfs mounted for the time of the test."""
    require_root()
    with _mounted("tmpfs", "-o", options, "none") as path:
        yield path


@contextlib.contextmanager
def btrfs(mib):
    """The same of a file system whose files can share blocks."""
    require_root()
    if not shutil.which("mkfs.btrfs"):
        pytest.skip("mkfs.btrfs is not installed")
    with tempfile.NamedTemporaryFile(prefix="snapuffd-btrfs-") as disk:
        disk.truncate(mib << 20)
        subprocess.run(["mkfs.btrfs", "-q", disk.name], check=True,
                       capture_output=True)  # fmt: skip
        with _mounted("btrfs", "-o", "loop", disk.name) as path:
            yield path


@contextlib.contextmanager
def ext4(file, options="defaults"):
    """The same of an ext4 that is made in a file."""
    require_root()
    if not shutil.which("mkfs.ext4"):
        pytest.skip("mkfs.ext4 is not installed")
    subprocess.run(["mkfs.ext4", "-q", "-F", file], check=True,
                   capture_output=True)  # fmt: skip
    with _mounted("ext4", "-o", f"loop,{options}", file) as path:
        yield path


@contextlib.contextmanager
def cgroup():
    """A cgroup (v2) for the time of the test, which ends what it holds."""
    require_root()
    with open("/proc/mounts") as mounts:
        roots = [line.split()[1] for line in mounts
                 if line.split()[2] == "cgroup2"]  # fmt: skip
    if not roots:
        pytest.skip("no cgroup2 is mounted")
    path = Path(roots[0]) / f"snapuffd-test-{os.getpid()}"
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made: {error}")
    try:
        if not (path / "cgroup.freeze").exists():
            pytest.skip("cgroups cannot be frozen")
        yield path
        (path / "cgroup.freeze").write_text("0")
        wait_for(lambda: "populated 0" in (path / "cgroup.events").read_text())
    finally:
        for below in path.iterdir():
            if below.is_dir():
                below.rmdir()
        path.rmdir()


def join(cgroup, pid):
    (cgroup / "cgroup.procs").write_text(str(pid))


def wait_for(probe, timeout=30):
    deadline = time.monotonic() + timeout
    while not probe():
        assert time.monotonic() < deadline, f"nothing after {timeout} s"
        time.sleep(0.002)
