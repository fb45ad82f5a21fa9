# SPDX-License-Identifier: GPL-2.0-or-later
import os
import shutil
from pathlib import Path

import pytest

pytest.register_assert_rewrite(
    "harness.procstate", "harness.cli", "harness.process"
)

from harness import guest as guest_module  # noqa: E402
from harness import host, process, victim  # noqa: E402
from harness.guest import Guest  # noqa: E402
from harness.process import Targets  # noqa: E402


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes more than half a minute")


@pytest.fixture(scope="session")
def guest_files():
    """Kernel and initramfs, built where they are not up to date."""
    host.require_root()
    if not shutil.which("qemu-system-x86_64"):
        pytest.skip("qemu-system-x86_64 is not installed")
    return guest_module.build()


class Guests:
    """Starts guests and ends all that a test leaves."""

    def __init__(self):
        self._open = []

    def start(self, spec, ready=True, **options):
        return self.adopt(Guest(spec, **options), ready)

    def restore(self, source, incoming, **options):
        """A restored QEMU has no ready line: it was printed before."""
        return self.adopt(source.restore(incoming, **options), ready=False)

    def adopt(self, guest, ready):
        self._open.append(guest)
        if ready:
            guest.wait_ready()
        return guest

    def close(self):
        while self._open:
            self._open.pop().close()


@pytest.fixture
def guests(guest_files):
    guests = Guests()
    yield guests
    guests.close()


@pytest.fixture(scope="module")
def module_guests(guest_files):
    """The same for guests that the tests of a module share."""
    guests = Guests()
    yield guests
    guests.close()


@pytest.fixture
def targets():
    """Starts processes that are no QEMU."""
    host.require_root()
    targets = Targets()
    yield targets
    targets.close()


@pytest.fixture(scope="session")
def victim_exe(tmp_path_factory):
    if path := os.environ.get("SNAPUFFD_VICTIM"):
        return Path(path)
    if not shutil.which("cc"):
        pytest.skip("cc is not installed")
    return victim.build(tmp_path_factory.mktemp("victim"))


@pytest.fixture
def start(targets, victim_exe):
    """Starts victims: what each is to do, one word each; the cgroup that it and
    its children are in."""

    def start(*words, cgroup=None, **options):
        if cgroup:
            # Before it has children.
            options["preexec_fn"] = lambda: host.join(cgroup, os.getpid())
        return targets.start([victim_exe, *words], "^ready$", **options)

    return start


@pytest.fixture
def judge(victim_exe, tmp_path):
    """Convicts a core of a victim that is not of one instant."""
    process.require_gdb()

    def judge(core):
        return victim.judge(victim_exe, core, tmp_path / "facts")

    return judge


@pytest.fixture
def cgroup():
    """To be named before what starts processes, which end before it."""
    with host.cgroup() as path:
        yield path


@pytest.fixture
def out(tmp_path):
    """Where a dump goes; removed after the test, images are large."""
    path = tmp_path / "image"
    yield path
    shutil.rmtree(path, ignore_errors=True)
    shutil.rmtree(Path(f"{path}.partial"), ignore_errors=True)
