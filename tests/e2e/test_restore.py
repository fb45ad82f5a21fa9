# SPDX-License-Identifier: GPL-2.0-or-later
"""`snapuffd restore`: a VM that runs from the image's own pages, beside the one
that was dumped, and an image that nothing changes."""

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from harness import cli, host, procstate
from harness.clone import Clone
from harness.guest import GuestError, GuestSpec, qemu10

BALLOON = GuestSpec(
    modules=("virtio_pci", "virtio_balloon"),
    extra=("-device", "virtio-balloon-pci,id=balloon0"),
)

KINDS = {
    "pc": GuestSpec(),
    "q35-memfd-2cpu": GuestSpec(machine="q35", ram="memfd", smp=2),
    "file": GuestSpec(ram="file"),
    "hugetlb": GuestSpec(ram="hugetlb"),
    "numa": GuestSpec(ram="numa", mem_mib=160, judge={"mib": 64}),
    "dimm": GuestSpec(ram="dimm", mem_mib=128, judge={"mib": 128}),
    "vga-net-sandbox": GuestSpec(
        vga="std", nic="virtio-net-pci", sandbox=True
    ),
}


def memory_for(spec, n_guests):
    if spec.ram != "hugetlb":
        return contextlib.nullcontext()
    return host.huge_pages(n_guests * spec.mem_mib)


def dump(guest, out, *options):
    cli.run("dump", "--pid", guest.pid, "--out", out,
            *options).expect(cli.DONE)  # fmt: skip


def assert_goes_on(source, clone, checks=2):
    """The clone's memory is whole, and its judge goes on from a line that the
    source has printed."""
    clone.wait_checks(checks)
    first = clone.verdicts()[0]
    start = first.seq - first.writes
    assert start in {v.seq for v in source.verdicts()} | {source.judge_start}


def fingerprint(image):
    """Everything of the files that a guest could change."""
    return {
        path.name: (path.stat().st_size, path.stat().st_blocks)
        for path in image.iterdir()
    }


@pytest.fixture
def clones():
    with contextlib.ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(
            Clone(*args, **options)
        )


@pytest.mark.parametrize("spec", KINDS.values(), ids=KINDS.keys())
def test_instant_and_eager(guests, clones, out, spec):
    with memory_for(spec, 2):
        source = guests.start(spec)
        source.wait_checks(1)
        before = procstate.settled(source.pid)
        dump(source, out)
        source.wait_checks(1)
        files = fingerprint(out)

        instant = clones(spec, out)
        assert instant.report["eager"] is False
        assert instant.report["state"] == "running"
        eager = clones(spec, out, "--eager")
        assert eager.report["eager"] is True
        for clone in (instant, eager):
            assert_goes_on(source, clone)
            assert clone.status() == "running"
            assert clone.stderr() == ""
        # What the source has is still its own.
        source.wait_checks(2)
        procstate.assert_same(before)
        for clone in (instant, eager):
            clone.close()
        assert fingerprint(out) == files
        cli.run("verify", out).expect(cli.DONE)
        guests.close()


def test_memory_of_clones_is_shared(guests, clones, out):
    """Clones have the image's pages in common until they write to them."""
    spec = GuestSpec(mem_mib=256, judge={"mib": 128, "mode": "idle"})
    source = guests.start(spec)
    source.wait_checks(1)
    dump(source, out)
    guests.close()
    found = [clones(spec, out) for _ in range(4)]
    for clone in found:
        clone.wait_checks(1)  # all 128 MiB were read
    sizes = [procstate.rollup(clone.pid) for clone in found]
    for size in sizes:
        assert size["Rss"] > 128 << 10
        # Two thirds of what each has is there once for all four.
        assert size["Pss"] < size["Rss"] / 2
    cli.run("verify", out).expect(cli.DONE)


def test_paused_comes_back_paused(guests, clones, out):
    source = guests.start(GuestSpec())
    source.wait_checks(1)
    source.stop()
    dump(source, out)
    clone = clones(source.spec, out)
    assert clone.report["state"] == "paused"
    assert clone.status() in ("paused", "prelaunch")
    clone.cont()
    assert_goes_on(source, clone)


def test_dump_of_a_clone(guests, clones, out, tmp_path):
    """Its RAM is a private mapping, which can be protected on tmpfs alone."""
    source = guests.start(GuestSpec())
    dump(source, out)
    second = tmp_path / "second"
    clone = clones(source.spec, out)
    cli.run("dump", "--pid", clone.pid, "--out", second).expect_error(
        cli.REFUSED, "memfd, tmpfs or hugetlbfs"
    )
    clone.wait_checks(1)
    with host.tmpfs("size=512M") as shm:
        shutil.copytree(out, shm / "image")
        clone = clones(source.spec, shm / "image")
        clone.wait_checks(1)
        dump(clone, second)
        cli.run("verify", shm / "image").expect(cli.DONE)
        clone.close()
    again = clones(source.spec, second, "--eager")
    again.wait_checks(1)
    dump(again, tmp_path / "third")


def inflate(guest):
    """Takes 24 of the guest's 128 MiB, of which some held data at boot."""
    down_to = 104 << 20
    with guest.qmp() as qmp:
        qmp.command("balloon", value=down_to)
        guest.wait(
            "balloon",
            lambda: qmp.command("query-balloon")["actual"] <= down_to,
        )


@pytest.mark.parametrize("version", ["7.2", "10"])
def test_balloon_makes_no_holes_in_the_image(guests, clones, out, version):
    try:
        spec = BALLOON.replace(qemu=qemu10()) if version == "10" else BALLOON
    except GuestError as error:
        pytest.skip(f"no QEMU 10 to be had: {error}")
    source = guests.start(spec)
    source.wait_checks(1)
    dump(source, out)
    files = fingerprint(out)
    clone = clones(spec, out)
    clone.wait_checks(1)
    inflate(clone)
    clone.wait_checks(2)
    clone.kill()
    assert fingerprint(out) == files
    cli.run("verify", out).expect(cli.DONE)


def test_balloon_would_make_holes(guests, clones, out):
    """What the test above would see: the same by hand, unprotected."""
    source = guests.start(BALLOON)
    source.wait_checks(1)
    dump(source, out)
    files = fingerprint(out)
    shown = cli.run("restore", out, "--print").expect(cli.DONE).out.decode()
    assert "share=off" in shown
    work = out.with_name("work")
    work.mkdir()
    shown = shown.replace("/var/tmp/snapuffd-restore-XXXXXX", str(work))
    shown = shown.replace("exec:snapuffd", f"exec:{cli.program()}")
    with subprocess.Popen(["sh", "-c", f"exec {shown}"]) as process:
        try:
            clone = object.__new__(Clone)
            clone.report = {"pid": process.pid}
            clone.dir, clone.spec, clone.shm_dir = work, BALLOON, None
            clone.stderr = lambda: ""
            clone.wait_checks(1)
            inflate(clone)
        finally:
            process.kill()
    assert fingerprint(out) != files
    cli.run("verify", out).expect(cli.FAILED)


def test_given_command_line(guests, clones, out, tmp_path):
    source = guests.start(GuestSpec())
    dump(source, out)
    argv = source.argv()
    serial = tmp_path / "serial.log"
    at = argv.index("-chardev")
    argv[at + 1] = f"file,id=serial0,path={serial}"
    # The sockets are left out; one is asked for.
    argv = argv[: argv.index("-qmp")]
    qmp = tmp_path / "qmp.sock"
    clone = clones(source.spec, out, "--qmp", qmp, argv=argv)
    assert qmp.is_socket()
    clone.wait("checks", lambda: "check=clean" in serial.read_text())
    assert "check=TORN" not in serial.read_text()


def test_disk_gets_an_overlay(guests, clones, out, tmp_path):
    spec = GuestSpec(disk="raw")
    source = guests.start(spec)
    source.wait_checks(1)
    source.stop()
    dump(source, out)
    disk = tmp_path / "disk.raw"
    # The VM that holds the disk is gone; nothing has written to it since.
    shutil.move(source.disk, disk)
    source.kill()
    shutil.move(disk, source.disk)
    content = source.disk.read_bytes()
    clone = clones(spec, out)
    assert (clone.dir / "virtio0.qcow2").exists()
    clone.cont()
    clone.wait_checks(3)
    assert source.disk.read_bytes() == content


def test_bad_input(guests, out, tmp_path):
    source = guests.start(GuestSpec(disk="raw"))
    source.wait_checks(1)
    source.stop()
    dump(source, out)
    argv = [str(word) for word in source.argv()]
    leftovers = set(Path("/var/tmp").glob("snapuffd-restore-*"))

    def refused(code, word, *options, line=None):
        tail = ["--", *line] if line else []
        result = cli.run("restore", out, *options, *tail)
        result.expect_error(code, word)

    def with_option(name, value):
        at = argv.index(name)
        return [*argv[: at + 1], value, *argv[at + 2 :]]

    refused(cli.USAGE, "pc-i440fx", line=with_option("-machine", "q35"))
    refused(cli.USAGE, "96 MiB", line=with_option("-m", "96M"))
    refused(cli.USAGE, "no such machine", line=with_option("-machine", "pdp11"))
    refused(cli.USAGE, "without its value", line=[*argv, "-name"])
    refused(cli.FAILED, "no QEMU", "--qemu", "/bin/ls")
    refused(cli.FAILED, "cannot be run", "--qemu", "/nonexistent")
    refused(cli.FAILED, "exists already", "--dir", tmp_path)
    refused(cli.FAILED, "cannot make", "--dir", tmp_path / "a" / "b")
    # The source is there still and holds the disk.
    refused(cli.FAILED, "in use")
    source.kill()
    # QEMU's own complaint is passed on.
    refused(cli.FAILED, "nosuchdevice", "--disks", "as-is",
            line=[*argv, "-device", "nosuchdevice"])  # fmt: skip

    with open(source.disk, "ab") as disk:
        disk.write(bytes(512))
    refused(cli.FAILED, "has changed")
    os.unlink(source.disk)
    refused(cli.FAILED, "No such file")
    with open(out / "pc.ram.pages", "ab") as pages:
        pages.write(bytes(4096))
    refused(cli.FAILED, "damaged", "--eager", "--disks", "as-is", line=argv)
    assert set(Path("/var/tmp").glob("snapuffd-restore-*")) == leftovers


def test_image_of_a_newer_qemu(guests, out):
    try:
        source = guests.start(GuestSpec(qemu=qemu10()))
    except GuestError as error:
        pytest.skip(f"no QEMU 10 to be had: {error}")
    dump(source, out)
    cli.run("restore", out, "--qemu", "qemu-system-x86_64").expect_error(
        cli.FAILED, "newer"
    )


def test_interrupted(guests, out):
    """Ctrl-C while QEMU reads: it is gone, and so is its directory."""
    source = guests.start(GuestSpec())
    dump(source, out)
    source.kill()
    where = out.with_name("clone")
    with cli.Running("restore", out, "--eager", "--dir", where) as running:
        host.wait_for(lambda: (where / "qemu.log").exists())
        running.signal(signal.SIGINT)
        result = running.wait()
    if result.code == cli.DONE:
        pytest.skip("it was over before it could be interrupted")
    result.expect_error(cli.FAILED, "interrupted")
    assert not where.exists()
