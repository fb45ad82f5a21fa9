# SPDX-License-Identifier: GPL-2.0-or-later
"""This machine's programs on another kernel: a guest under TCG whose disk
holds Python with pytest, gdb, QEMU, the tests and the program under test, all
at their own paths.  It runs commands and ends; its serial port is what they
print."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from . import cli
from .guest import GUEST_DIR, QUICK_BOOT, GuestError, cache_dir

TESTS_DIR = GUEST_DIR.parent
PLACE = Path("/snapuffd")  # in the guest: tests/, snapuffd, victim

TOOLS = ("gdb", "qemu-system-x86_64", "qemu-img", "as", "ld", "mount",
         "umount", "setpriv", "true", "sleep", "cat", "sh",
         "mkfs.ext4")  # fmt: skip
# What gdb and QEMU load by name.
LIBRARIES = ("libthread_db.so.1", "libgcc_s.so.1", "qemu/accel-tcg-*.so")
DATA = ("/usr/share/gdb", "/usr/share/qemu", "/usr/share/seabios",
        "/usr/lib/ipxe/qemu", "/etc/passwd", "/etc/group",
        "/etc/mke2fs.conf")  # fmt: skip
PYTEST = ("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "attr",
          "exceptiongroup", "py", "pygments")  # fmt: skip
NOT_OF_PYTHON = ("test", "tests", "idlelib", "tkinter", "lib2to3", "ensurepip",
                 "dist-packages", "site-packages", "config-*")  # fmt: skip

DISK_MIB = 2048
MEMORY_MIB = 1536

INIT = """#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
/bin/busybox mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
/bin/busybox ln -s /proc/self/fd /dev/fd
echo core >/proc/sys/kernel/core_pattern
/bin/busybox ip link set lo up
export HOME=/root PATH=/usr/sbin:/usr/bin PYTHONDONTWRITEBYTECODE=1
export SNAPUFFD={place}/snapuffd SNAPUFFD_VICTIM={place}/victim
cd {place}/tests/e2e
echo "kernel $(/bin/busybox uname -r)"
{commands}
echo "the end"
/bin/busybox poweroff -f
"""


def _libraries(path):
    """All that the loader maps for it."""
    done = subprocess.run(["ldd", path], capture_output=True, text=True)
    return re.findall(r"(/\S+) \(0x", done.stdout)


class _Tree:
    """A root directory into which files of this machine are copied."""

    def __init__(self, top):
        self.top = top
        for name in ("bin", "sbin", "lib", "lib64"):
            (top / "usr" / name).mkdir(parents=True)
            (top / name).symlink_to(f"usr/{name}")
        for name in ("proc", "sys", "dev", "run", "root", "etc", "var/tmp",
                     "tmp"):  # fmt: skip
            (top / name).mkdir(parents=True)

    def at(self, path):
        return self.top / str(path).lstrip("/")

    def add_file(self, path, to=None):
        to = self.at(to or path)
        if not to.exists():
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, to)

    def add_program(self, path, to=None):
        self.add_file(path, to)
        for library in _libraries(path):
            self.add_file(library)

    def add_dir(self, path, but=(), to=None):
        shutil.copytree(
            path, self.at(to or path), symlinks=True, dirs_exist_ok=True,
            ignore=shutil.ignore_patterns(*but),
        )  # fmt: skip


def _add_python(tree):
    tree.add_program(sys.executable)
    stdlib = Path(sysconfig.get_path("stdlib"))
    tree.add_dir(stdlib, NOT_OF_PYTHON)
    for module in (stdlib / "lib-dynload").glob("*.so"):
        tree.add_program(module)
    for name in PYTEST:
        spec = importlib.util.find_spec(name)
        if spec and spec.submodule_search_locations:
            tree.add_dir(spec.submodule_search_locations[0])
        elif spec:
            tree.add_file(spec.origin)


def _add_tools(tree):
    tree.add_program(shutil.which("busybox"), "/usr/bin/busybox")
    for name in TOOLS:
        path = shutil.which(name)
        if path:
            tree.add_program(path, f"/usr/bin/{name}")
    libc = next(p for p in _libraries(sys.executable) if "/libc.so" in p)
    for pattern in LIBRARIES:
        for path in Path(libc).parent.glob(pattern):
            tree.add_program(path)
    for path in map(Path, DATA):
        if path.is_dir():
            tree.add_dir(path)
        elif path.exists():
            tree.add_file(path)


def make_disk(path, place, victim, programs=()):
    """An ext4 in a file; `place` is a directory for it to be put together.
    `programs` are more that go to PLACE."""
    tree = _Tree(place / "root")
    _add_python(tree)
    _add_tools(tree)
    tree.add_program(cli.program(), PLACE / "snapuffd")
    tree.add_program(victim, PLACE / "victim")
    for program in programs:
        tree.add_program(program, PLACE / program.name)
    for name in ("e2e", "guest"):
        tree.add_dir(TESTS_DIR / name, ("__pycache__",),
                     PLACE / "tests" / name)  # fmt: skip
    with open(path, "wb") as disk:
        disk.truncate(DISK_MIB << 20)
    subprocess.run(
        ["mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-d", tree.top, path],
        check=True, capture_output=True,
    )  # fmt: skip
    shutil.rmtree(tree.top)


def fetch(suite, cache=None):
    """The directory of a kernel; a GuestError tells why it cannot be had."""
    cache = Path(cache or cache_dir())
    done = subprocess.run([GUEST_DIR / "fetch-kernel", suite, cache],
                          capture_output=True, text=True)  # fmt: skip
    if done.returncode:
        raise GuestError(done.stderr.strip())
    return cache / f"kernel-{suite}"


def _set_init(disk, place, commands):
    init = place / "init"
    init.write_text(INIT.format(place=PLACE, commands="\n".join(commands)))
    for command in ("rm /init", f"write {init} /init",
                    "set_inode_field /init mode 0100755"):  # fmt: skip
        subprocess.run(["debugfs", "-w", "-R", command, disk],
                       capture_output=True, check=True)  # fmt: skip


def run(kernel, disk, place, commands, timeout):
    """Boots, runs the lines of shell, and returns what was printed."""
    serial = place / "serial"
    _set_init(disk, place, commands)
    argv = [
        "qemu-system-x86_64", "-nodefaults", "-no-user-config",
        "-display", "none", "-no-reboot", "-machine", "q35",
        "-accel", "tcg,thread=multi", "-cpu", "max,la57=off", "-smp", "2",
        "-m", f"{MEMORY_MIB}M",
        "-kernel", kernel / "vmlinuz", "-initrd", kernel / "initramfs.gz",
        "-append", QUICK_BOOT,
        "-drive", f"if=virtio,format=raw,snapshot=on,file={disk}",
        "-serial", f"file:{serial}",
    ]  # fmt: skip
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          ) as qemu:  # fmt: skip
        deadline = time.monotonic() + timeout
        try:
            said, _ = qemu.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            qemu.kill()
            said, _ = qemu.communicate()
    text = serial.read_text(errors="replace") if serial.exists() else ""
    text = text.replace("\r", "")
    if "\nthe end\n" not in text:
        what = "ended" if time.monotonic() < deadline else "is not done"
        raise GuestError(
            f"the guest {what} after {timeout} s; QEMU: {said!r}; serial ends: "
            f"{text[-3000:]}"
        )
    return text
