# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU guests that judge their own memory.

A GuestSpec says what machine it is; the same spec gives the command line of
the QEMU that boots it and of the one that restores it.  Each Guest has a
directory of its own with its sockets, its serial log and its stderr, and is
killed by pid and removed in close().
"""

import ctypes
import dataclasses
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from . import judge
from .qmp import Qmp, QmpError

GUEST_DIR = Path(__file__).resolve().parents[2] / "guest"

# All for a quick boot under TCG, about 4 s; nothing here matters to a dump.
QUICK_BOOT = (
    "console=ttyS0 quiet panic=-1 tsc=reliable no_timer_check mitigations=off "
    "nokaslr random.trust_cpu=on audit=0 apparmor=0 ipv6.disable=1 "
    "i8042.noaux cryptomgr.notests memhp_default_state=online"
)

PR_SET_PDEATHSIG = 1
PR_SET_THP_DISABLE = 41

RAM_KINDS = (
    "anon",  # QEMU's own default; it asks for huge pages
    "anon4k",  # the same, with huge pages switched off
    "memfd",
    "file",
    "hugetlb",
    "hugetlb-private",
    "numa",  # two nodes: private memory and a memfd
    "dimm",  # a hot-plugged pc-dimm, which the judge's memory reaches into
)
DIMM_MIB = 128  # the smallest that Linux takes


class GuestError(AssertionError):
    """The guest did not do what was waited for."""


def cache_dir():
    default = os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")
    return Path(os.environ.get("SNAPUFFD_CACHE") or Path(default) / "snapuffd")


def build(cache=None):
    """Makes kernel and initramfs where they are not up to date."""
    cache = Path(cache or cache_dir())
    _run_script("build-guest", cache)
    return cache


def qemu10(cache=None):
    """The path of a QEMU 10, fetched where it is not there yet."""
    cache = Path(cache or cache_dir())
    _run_script("fetch-qemu10", cache)
    return str(cache / "qemu10" / "qemu-system-x86_64")


def _run_script(name, cache):
    done = subprocess.run(
        [GUEST_DIR / name, cache], capture_output=True, text=True
    )
    if done.returncode:
        raise GuestError(done.stderr.strip())


@dataclass(frozen=True)
class GuestSpec:
    """What the machine is.  `judge` are judge.* options without the prefix."""

    machine: str = "pc"
    mem_mib: int = 128
    smp: int = 1
    ram: str = "anon"
    vga: str = "none"
    nic: str = "none"  # e1000, virtio-net-pci
    disk: str | None = None  # raw, qcow2: a virtio disk that is written to
    journal: bool = False  # it has an ext4, and the journal runs on it
    user: str | None = None  # the user that QEMU runs as, from its exec on
    sandbox: bool = False
    qmp: bool = True  # the QMP socket left to snapuffd
    monitor: bool = True  # the harness' own
    qemu: str = "qemu-system-x86_64"
    accel: str = "tcg"
    modules: tuple = ()  # loaded in the guest, in this order
    append: str = ""
    extra: tuple = ()
    prefix: tuple = ()  # what QEMU is started by, and becomes
    judge: dict = field(default_factory=lambda: {"mib": 32})

    @property
    def total_mib(self):
        return self.mem_mib + (DIMM_MIB if self.ram == "dimm" else 0)

    def replace(self, **changes):
        return dataclasses.replace(self, **changes)

    def kernel_args(self):
        words = [QUICK_BOOT]
        modules = list(self.modules)
        if self.disk:
            modules += ["virtio_pci", "virtio_blk"]
            words.append("guest.journal=vda" if self.journal
                         else "guest.disk=vda")  # fmt: skip
        if self.nic == "virtio-net-pci":
            modules += ["virtio_pci", "virtio_net"]
        if modules:
            words.append("guest.modules=" + ",".join(dict.fromkeys(modules)))
        if self.ram == "dimm":
            words.append("swiotlb=2048")  # else 64 MiB, for RAM above 4 GiB
        options = {"check_ms": 500, **self.judge}
        words += [f"judge.{key}={value}" for key, value in options.items()]
        return " ".join([*words, self.append]).strip()

    def ram_args(self, shm_dir):
        """Machine properties for the RAM, and the arguments it takes."""
        size = f"size={self.mem_mib}M"
        memory = ["-m", f"{self.mem_mib}M"]
        backend = {
            "memfd": f"memory-backend-memfd,id=ram0,{size},share=on",
            "file": f"memory-backend-file,id=ram0,{size},share=on,"
            f"mem-path={shm_dir}/ram",
            "private": f"memory-backend-file,id=ram0,{size},share=off,"
            f"mem-path={shm_dir}/ram",
            "hugetlb": f"memory-backend-memfd,id=ram0,{size},share=on,"
            "hugetlb=on,hugetlbsize=2M",
            "hugetlb-private": f"memory-backend-memfd,id=ram0,{size},share=off,"
            "hugetlb=on,hugetlbsize=2M",
        }.get(self.ram)
        if backend:
            return ",memory-backend=ram0", [*memory, "-object", backend]
        if self.ram == "numa":
            half = f"size={self.mem_mib // 2}M"
            return "", [
                *memory,
                "-object", f"memory-backend-ram,id=node0,{half}",
                "-object", f"memory-backend-memfd,id=node1,{half},share=on",
                "-numa", "node,nodeid=0,memdev=node0",
                "-numa", "node,nodeid=1,memdev=node1",
            ]  # fmt: skip
        if self.ram == "dimm":
            return "", ["-m", f"{self.mem_mib}M,slots=2,maxmem=1G"]
        return "", memory


class Guest:
    """A QEMU process.  Use as a context manager, or close() it."""

    def __init__(self, spec, incoming=None, dimm_addr=None, disk=None,
                 paused=False, stdin=subprocess.DEVNULL):
        self.spec = spec
        self.incoming = incoming
        self.stdin = stdin
        self.dimm_addr = dimm_addr
        self.process = None
        self.dir = Path(tempfile.mkdtemp(prefix="snapuffd-guest-"))
        self.shm_dir = None
        try:
            self._prepare(disk)
            self._start(paused)
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # start and end

    def _prepare(self, disk):
        if self.spec.ram in ("file", "private"):
            self.shm_dir = Path(
                tempfile.mkdtemp(prefix="snapuffd-guest-", dir="/dev/shm")
            )
        if self.spec.disk:
            self.disk = self.dir / f"disk.{self.spec.disk}"
            if disk:
                shutil.copyfile(disk, self.disk)
            else:
                subprocess.run(
                    ["qemu-img", "create", "-q", "-f", self.spec.disk,
                     self.disk, "32M"],
                    check=True,
                )  # fmt: skip
        self.boot_dir = cache_dir()
        if self.spec.user:
            # The cache may be where that user can't look.
            for name in ("vmlinuz", "initramfs.gz"):
                shutil.copyfile(self.boot_dir / name, self.dir / name)
            self.boot_dir = self.dir
            user = pwd.getpwnam(self.spec.user)
            for path in (self.dir, self.shm_dir):
                for entry in [path, *path.iterdir()] if path else []:
                    os.chown(entry, user.pw_uid, user.pw_gid)

    def argv(self):
        """The whole command line, of the booting or the restoring QEMU."""
        spec = self.spec
        machine_ram, ram = spec.ram_args(self.shm_dir)
        argv = [
            spec.qemu,
            "-nodefaults", "-no-user-config", "-display", "none",
            "-no-reboot",
            "-machine", spec.machine + machine_ram,
            "-accel", spec.accel,
            *ram,
            "-smp", str(spec.smp),
            "-vga", spec.vga,
            "-chardev", f"file,id=serial0,path={self.serial_path}",
            "-serial", "chardev:serial0",
            "-kernel", str(self.boot_dir / "vmlinuz"),
            "-initrd", str(self.boot_dir / "initramfs.gz"),
            "-append", spec.kernel_args(),
        ]  # fmt: skip
        if spec.qmp:
            argv += ["-qmp", f"unix:{self.qmp_path},server=on,wait=off"]
        if spec.monitor:
            argv += [
                "-chardev", f"socket,id=harness,path={self.monitor_path},"
                "server=on,wait=off",
                "-mon", "chardev=harness,mode=control",
            ]  # fmt: skip
        if spec.nic != "none":
            argv += ["-netdev", "user,id=net0",
                     "-device", f"{spec.nic},netdev=net0"]  # fmt: skip
        if spec.disk:
            argv += ["-drive", f"if=virtio,format={spec.disk},"
                     f"file={self.disk}"]  # fmt: skip
        if spec.ram == "dimm" and self.incoming:
            argv += [
                "-object", f"memory-backend-ram,id=dimm0,size={DIMM_MIB}M",
                "-device", "pc-dimm,id=dimm0dev,memdev=dimm0,slot=0,"
                f"addr={self.dimm_addr:#x}",
            ]  # fmt: skip
        if spec.sandbox and not self.incoming:  # exec: is a child process
            argv += ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,"
                     "spawn=deny,resourcecontrol=deny"]  # fmt: skip
        if self.incoming:
            argv += ["-incoming", self.incoming]
        return [*argv, *spec.extra]

    def _start(self, paused):
        argv = self.argv()
        plug = self.spec.ram == "dimm" and not self.incoming
        if paused or plug:
            argv.append("-S")
        if self.spec.user:
            user = pwd.getpwnam(self.spec.user)
            argv = ["setpriv", f"--reuid={user.pw_uid}",
                    f"--regid={user.pw_gid}", "--clear-groups",
                    *argv]  # fmt: skip
        argv = [*map(str, self.spec.prefix), *argv]
        prctl = ctypes.CDLL(None, use_errno=True).prctl
        small_pages = self.spec.ram == "anon4k"

        def in_child():
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if small_pages:
                prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)

        with open(self.dir / "stderr", "wb") as stderr:
            self.process = subprocess.Popen(
                argv,
                stdin=self.stdin,
                stdout=stderr,
                stderr=stderr,
                preexec_fn=in_child,
            )
        if plug:
            self._plug_dimm()
            if not paused:
                self.cont()

    def _plug_dimm(self):
        with self.qmp() as qmp:
            qmp.command("object-add", qom_type="memory-backend-ram",
                        id="dimm0", size=DIMM_MIB << 20)  # fmt: skip
            qmp.command("device_add", driver="pc-dimm", id="dimm0dev",
                        memdev="dimm0")  # fmt: skip
            devices = qmp.command("query-memory-devices")
        self.dimm_addr = devices[0]["data"]["addr"]

    def restore(self, incoming, spec=None, **options):
        """A QEMU of the same machine that reads `incoming`."""
        return Guest(
            spec or self.spec,
            incoming=incoming,
            dimm_addr=self.dimm_addr,
            disk=getattr(self, "disk", None),
            **options,
        )

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
        if self.process:
            self.process.wait()

    def close(self):
        self.kill()
        for path in (self.dir, self.shm_dir):
            if path:
                shutil.rmtree(path, ignore_errors=True)

    # what it says

    @property
    def pid(self):
        return self.process.pid

    @property
    def qmp_path(self):
        return self.dir / "qmp.sock"

    @property
    def monitor_path(self):
        return self.dir / "harness.sock"

    @property
    def serial_path(self):
        return self.dir / "serial.log"

    def qmp(self):
        """The harness' own monitor; QEMU's QMP socket stays free."""
        try:
            return Qmp(self.monitor_path)
        except OSError as error:
            raise GuestError(
                f"no monitor ({error}); stderr: {self.stderr()!r}"
            ) from error

    def serial(self):
        try:
            return self.serial_path.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def stderr(self):
        return (self.dir / "stderr").read_text(errors="replace")

    def alive(self):
        return self.process.poll() is None

    def wait(self, what, probe, timeout=30):
        """Polls until probe() is true and returns that; tells what it was
        that never came, or that QEMU has ended."""
        deadline = time.monotonic() + timeout
        while True:
            dead = not self.alive()
            found = probe()
            if found:
                return found
            if dead:
                raise GuestError(
                    f"QEMU ended ({self.process.returncode}) while waiting "
                    f"for {what}; stderr: {self.stderr()!r}; "
                    f"serial ends: {self.serial()[-600:]!r}"
                )
            if time.monotonic() > deadline:
                raise GuestError(
                    f"no {what} after {timeout} s; stderr: {self.stderr()!r}; "
                    f"serial ends: {self.serial()[-600:]!r}"
                )
            time.sleep(0.05)

    def wait_ready(self, timeout=90):
        self.wait("ready judge", self.pages, timeout)
        return self

    def pages(self):
        """Pages that are judged."""
        return judge.ready_pages(self.serial())

    @property
    def judge_start(self):
        """The step the judge began with, before any verdict; None for a
        restored guest."""
        return self.pages()

    def verdicts(self):
        return judge.verdicts(self.serial())

    def last_judge(self):
        """The last verdict; None before the first."""
        found = self.verdicts()
        return found[-1] if found else None

    def wait_checks(self, n, clean=True, timeout=60):
        """Waits for `n` further checks and returns them; asserts, unless told
        not to, that all are clean."""
        start = len(self.verdicts())
        found = self.wait(
            f"{n} further checks",
            lambda: (v := self.verdicts()[start:])[n - 1 : n] and v,
            timeout,
        )
        if clean:
            torn = [v for v in found if not v.clean]
            assert not torn, f"the guest's memory is torn: {torn[0]}"
        return found

    # what it is told

    def status(self):
        with self.qmp() as qmp:
            return qmp.command("query-status")["status"]

    def stop(self):
        with self.qmp() as qmp:
            qmp.command("stop")

    def cont(self):
        with self.qmp() as qmp:
            qmp.command("cont")

    def load(self, uri, capabilities, **parameters):
        """What a guest that was restored from "defer" is to read."""
        with self.qmp() as qmp:
            qmp.command("migrate-set-capabilities", capabilities=[
                {"capability": name, "state": True} for name in capabilities
            ])  # fmt: skip
            if parameters:
                qmp.command("migrate-set-parameters", **parameters)
            qmp.command("migrate-incoming", uri=uri)

    def wait_status(self, status, timeout=30):
        self.wait(f"state {status}", lambda: self.status() == status, timeout)

    def migrate_to(self, path, timeout=60):
        """QEMU's own way: the guest ends up stopped, its stream in `path`."""
        with self.qmp() as qmp:
            qmp.command("migrate-set-parameters", max_bandwidth=10 << 30)
            qmp.command("migrate", uri=f"exec:cat > '{path}'")
            deadline = time.monotonic() + timeout
            while True:
                state = qmp.command("query-migrate").get("status")
                if state == "completed":
                    return path
                if state == "failed" or time.monotonic() > deadline:
                    raise GuestError(f"migration {state}: {self.stderr()!r}")
                time.sleep(0.05)


def assert_same_instant(source, restored, checks=2):
    """The restored guest is whole, and its judge goes on from a line that its
    source has printed.  Returns the step of that line."""
    restored.wait_checks(checks)
    first = restored.verdicts()[0]
    start = first.seq - first.writes
    assert start in {v.seq for v in source.verdicts()} | {source.judge_start}
    return start


__all__ = ["DIMM_MIB", "Guest", "GuestError", "GuestSpec", "Qmp", "QmpError",
           "RAM_KINDS", "assert_same_instant", "build", "cache_dir",
           "qemu10"]  # fmt: skip
