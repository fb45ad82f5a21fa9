# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that the guest gives back while it is captured: balloon, free-page
reporting. The snapshot is right, or the dump ends with exit code 4.

What is given back after the instant matters at it: a program in the guest
(tests/guest/shed.c) holds it until the balloon moves, and looks at it again in
the guest that is restored. The guests boot with init_on_alloc=0, else they
would write to what they give away, and have it captured by that."""

import json
import re
import shlex
import subprocess

import pytest
from harness import cli, host
from harness.guest import GuestSpec

MIB = 1 << 20
PAGE = 4096
SHED_MIB = 48
MEM_MIB = 160

SPEC = GuestSpec(
    mem_mib=MEM_MIB,
    modules=("virtio_pci", "virtio_balloon"),
    append=f"init_on_alloc=0 guest.shed={SHED_MIB}",
    judge={"mib": 8, "rate": 200},
)
BALLOON = ("-device", "virtio-balloon-pci,id=balloon0")
REPORTING = ("-device", "virtio-balloon-pci,id=balloon0,free-page-reporting=on")


def shed_lines(guest):
    return re.findall(r"^shed: (.*?)\r?$", guest.serial(), re.MULTILINE)


def start(guests, spec):
    guest = guests.start(spec)
    guest.wait("memory to give back", lambda: len(shed_lines(guest)) > 1)
    guest.wait_checks(1)
    return guest


class SlowDump:
    """One that takes its time from the instant on, with few buffers."""

    def __init__(self, guest, out, rate=12):
        argv = [cli.program(), "dump", "--pid", guest.pid, "--out", out,
                "--json", "--progress", "json", "--buffer", "16M",
                "--rate-limit", rate,
                "--max-stall", cli.MAX_STALL_MS]  # fmt: skip
        self.process = subprocess.Popen(
            list(map(str, argv)), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        # It has begun to capture.
        self.lines = [self.process.stderr.readline()]
        assert "pages_captured" in self.lines[0], self.lines

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()

    def is_over(self):
        return self.process.poll() is not None

    def wait(self, timeout=120):
        out, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, out, err


def judge(guests, source, out, spec=None):
    """The guest that is restored holds what was held at the instant."""
    command = [cli.program(), "convert", str(out), "--to", "qemu", "--out", "-"]
    restored = guests.restore(source, f"exec:{shlex.join(command)}", spec=spec)
    restored.wait_checks(1)
    said = restored.wait("word of the shed", lambda: shed_lines(restored))
    assert said[0] == f"clean pages={SHED_MIB * MIB // PAGE}"
    restored.close()


def finish(guests, source, dump, out, may_be_lost):
    """Right, or lost and said to be; the source runs on. Returns the figures of
    a dump that is right."""
    code, text, err = dump.wait()
    source.wait_checks(1)
    if code == cli.INCONSISTENT and may_be_lost:
        assert "the snapshot is discarded" in err
        assert not out.exists()
        return None
    assert code == cli.DONE, err
    judge(guests, source, out)
    return json.loads(text)


def balloon(source, mib):
    with source.qmp() as qmp:
        qmp.command("balloon", value=mib * MIB)


def wait_until_let_go(source, dump):
    source.wait("memory let go",
                lambda: "let go" in shed_lines(source) or dump.is_over())


def assert_was_captured_first(figures):
    """Most of what was given away, by the thread that serves its owner."""
    assert figures["pages"]["fault"] * PAGE > SHED_MIB * MIB // 3


def test_balloon_on_anonymous_memory(guests, out):
    source = start(guests, SPEC.replace(ram="anon4k", extra=BALLOON))
    with SlowDump(source, out) as dump:
        balloon(source, MEM_MIB - SHED_MIB - 40)
        figures = finish(guests, source, dump, out, may_be_lost=False)
    assert_was_captured_first(figures)


@pytest.mark.parametrize("ram", ["memfd", "private"])
def test_balloon_on_files(guests, out, ram):
    """QEMU punches holes, of which nothing tells before."""
    source = start(guests, SPEC.replace(ram=ram, extra=BALLOON))
    with SlowDump(source, out) as dump:
        balloon(source, MEM_MIB - SHED_MIB - 40)
        finish(guests, source, dump, out, may_be_lost=True)


@pytest.mark.parametrize("ram", ["anon", "memfd", "hugetlb",
                                 "hugetlb-private"])
def test_free_page_reporting(guests, out, ram):
    spec = SPEC.replace(ram=ram, extra=REPORTING)
    with host.huge_pages(2 * MEM_MIB if "hugetlb" in ram else 0):
        source = start(guests, spec)
        with SlowDump(source, out) as dump:
            balloon(source, MEM_MIB - 1)
            wait_until_let_go(source, dump)
            figures = finish(guests, source, dump, out,
                             may_be_lost=ram != "anon")
        if ram == "anon":
            assert_was_captured_first(figures)
        guests.close()
