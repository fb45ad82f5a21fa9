# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt's daemons, as Debian configures them, and domains of them whose
guests judge their own memory."""

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from . import host, procstate
from .clone import Ended
from .guest import Guest, GuestError, GuestSpec

PR_SET_PDEATHSIG = 1

# The first domain has each emulator asked for what it can; that is kept.
FIRST_START = 180

# A /dev/kvm that root alone may open has libvirt take what it knows of an
# emulator for outdated, and ask it anew a dozen times for each domain.
WITHOUT_KVM = """
mount -t tmpfs -o mode=755 dev "$1" &&
for node in /dev/*; do
	case $node in
	/dev/kvm) ;;
	*) [ -d "$node" ] || cp -a "$node" "$1" ;;
	esac
done
awk '$2 ~ "^/dev/" { print $2 }' /proc/mounts | while read -r dir; do
	mkdir -p "$1/${dir#/dev/}" && mount --move "$dir" "$1/${dir#/dev/}"
done
mount --move "$1" /dev
"""


def virsh(*args, check=True, timeout=FIRST_START):
    done = subprocess.run(
        ["virsh", "-q", "-c", "qemu:///system", *map(str, args)],
        capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip
    if check and done.returncode:
        raise GuestError(f"virsh {args[0]}: {done.stderr.strip()}")
    return done.stdout.strip() if check else done


def answers(path):
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(path) == 0


class Daemons:
    """virtlogd and libvirtd, for as long as the tests need them."""

    def __init__(self):
        for name in ("virtlogd", "libvirtd", "virsh"):
            if not shutil.which(name):
                pytest.skip(f"{name} is not installed")
        if virsh("list", check=False).returncode == 0:
            pytest.skip("a libvirtd runs already, which is not ours to kill")
        self._dev = tempfile.mkdtemp(prefix="snapuffd-dev-")
        self._logger = self._start("virtlogd")
        host.wait_for(lambda: answers("/run/libvirt/virtlogd-sock"))
        self.start()

    def _start(self, name):
        prctl = ctypes.CDLL(None).prctl
        return subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c",
             f"{WITHOUT_KVM} exec {name}", "sh", self._dev],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
        )  # fmt: skip

    def start(self):
        self._daemon = self._start("libvirtd")
        deadline = time.monotonic() + 60
        while virsh("list", check=False).returncode:
            if time.monotonic() > deadline or self._daemon.poll() is not None:
                raise GuestError("libvirtd does not come up")
            time.sleep(0.1)

    @property
    def pid(self):
        return self._daemon.pid

    def reap(self):
        """After somebody has killed it."""
        self._daemon.wait(timeout=30)

    def kill(self):
        self._daemon.kill()
        self.reap()

    def restart(self):
        self._daemon.terminate()
        self.reap()
        self.start()

    def close(self):
        for daemon in (self._daemon, self._logger):
            if daemon.poll() is None:
                daemon.terminate()
                try:
                    daemon.wait(timeout=30)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()
        os.rmdir(self._dev)


class Domain(Guest):
    """A domain of plain XML: nothing in it is made for snapuffd."""

    def __init__(self, name, spec=GuestSpec()):
        self.name = name
        super().__init__(spec.replace(monitor=False, qmp=False,
                                      user="libvirt-qemu"))  # fmt: skip

    def xml(self):
        spec = self.spec
        backing = ("<memoryBacking><source type='memfd'/>"
                   "<access mode='shared'/></memoryBacking>"
                   if spec.ram == "memfd" else "")  # fmt: skip
        return f"""
<domain type='qemu'>
  <name>{self.name}</name>
  <memory unit='MiB'>{spec.mem_mib}</memory>
  {backing}
  <vcpu>{spec.smp}</vcpu>
  <os>
    <type arch='x86_64' machine='{spec.machine}'>hvm</type>
    <kernel>{self.boot_dir}/vmlinuz</kernel>
    <initrd>{self.boot_dir}/initramfs.gz</initrd>
    <cmdline>{spec.kernel_args()}</cmdline>
  </os>
  <features><acpi/></features>
  <devices>
    <serial type='file'><source path='{self.serial_path}'/></serial>
  </devices>
</domain>
"""

    def _start(self, paused):
        del paused
        os.chmod(self.dir, 0o711)
        file = self.dir / "domain.xml"
        file.write_text(self.xml())
        virsh("define", file)
        self.boot()

    def boot(self):
        virsh("start", self.name)
        self.find()

    def find(self):
        """After libvirt has started it, and its serial log anew."""
        self._pid = int(Path(f"/run/libvirt/qemu/{self.name}.pid").read_text())
        self.process = Ended(self)

    @property
    def pid(self):
        return self._pid

    def alive(self):
        return procstate.is_alive(self.pid)

    def state(self):
        return virsh("domstate", self.name)

    def stderr(self):
        log = Path(f"/var/log/libvirt/qemu/{self.name}.log")
        return log.read_text(errors="replace")[-600:] if log.exists() else ""

    def kill(self):
        virsh("destroy", self.name, check=False)
        virsh("undefine", self.name, "--managed-save", check=False)
        with contextlib.suppress(AttributeError, ProcessLookupError):
            if self.alive():  # of a daemon that is gone
                os.kill(self.pid, signal.SIGKILL)

    def stop(self):
        virsh("suspend", self.name)

    def cont(self):
        virsh("resume", self.name)
