# SPDX-License-Identifier: GPL-2.0-or-later
"""The main job: a guest under load is dumped, runs on unharmed, and a stock
QEMU resumes from the image as the guest was at one instant."""

import contextlib
import os
import shlex
import shutil
import stat

import pytest
from harness import cli, host, procstate
from harness.guest import (
    GuestError,
    GuestSpec,
    assert_same_instant,
    qemu10,
)

PAGE = 4096

GUESTS = {
    "pc": GuestSpec(),
    "seq": GuestSpec(judge={"mib": 32, "mode": "seq"}),
    "idle": GuestSpec(judge={"mib": 32, "mode": "idle"}),
    "q35-2cpu-small-pages": GuestSpec(machine="q35", smp=2, ram="anon4k"),
    "thp-in-guest": GuestSpec(judge={"mib": 32, "thp": 1}),
    "vga-e1000": GuestSpec(vga="std", nic="e1000"),
    "q35-memfd-virtio": GuestSpec(
        machine="q35", ram="memfd", nic="virtio-net-pci", disk="raw"
    ),
    "file": GuestSpec(ram="file"),
    "hugetlb": GuestSpec(ram="hugetlb"),
    "numa": GuestSpec(ram="numa", mem_mib=160, judge={"mib": 64}),
    "dimm": GuestSpec(ram="dimm", mem_mib=128, judge={"mib": 128}),
    "sandbox": GuestSpec(sandbox=True, disk="raw"),
    "unprivileged": GuestSpec(user="nobody"),
    "unprivileged-memfd-sandbox": GuestSpec(
        user="nobody", ram="memfd", sandbox=True
    ),
}


@contextlib.contextmanager
def memory_for(spec, n_guests=2):
    if spec.ram != "hugetlb":
        yield
        return
    with host.huge_pages(n_guests * spec.mem_mib):
        yield


def assert_figures(figures, running=True):
    """The keys that dump and inspect share, and what must hold of them."""
    assert figures["kind"] == "qemu"
    assert figures["complete"] is True
    if running:
        assert 0 < figures["pause_ms"] < 2000
    else:
        assert figures["pause_ms"] == 0
    assert 0 <= figures["captured_ms"] <= figures["duration_ms"]
    pages = figures["pages"]
    assert pages.keys() >= {"total", "data", "zero", "parent", "fault"}
    assert pages["total"] == pages["data"] + pages["zero"] + pages["parent"]
    assert 0 < pages["data"]
    assert 0 <= pages["fault"] <= pages["total"]
    assert figures["bytes_written"] >= pages["data"] * PAGE
    assert figures["peak_buffer_bytes"] >= 0
    faults = figures["faults"]
    assert faults.keys() >= {
        "count", "p50_us", "p90_us", "p99_us", "p999_us", "max_us"
    }  # fmt: skip
    assert faults["p50_us"] <= faults["p99_us"] <= faults["max_us"]


def assert_private(image):
    """They hold a guest's secrets."""
    assert stat.S_IMODE(image.stat().st_mode) == 0o700
    for path in image.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def dump(guest, out, *options, running=True):
    """Dumps and checks all that can be said without a restore."""
    result = cli.run("dump", "--pid", guest.pid, "--out", out, "--json",
                     *options).expect(cli.DONE)  # fmt: skip
    figures = result.json()
    assert_figures(figures, running)
    assert_private(out)
    assert not out.with_name(out.name + ".partial").exists()
    cli.run("verify", out).expect(cli.DONE)
    return figures


@pytest.mark.parametrize("spec", GUESTS.values(), ids=GUESTS.keys())
def test_dump_and_restore(guests, out, spec):
    with memory_for(spec):
        source = guests.start(spec)
        seq_before = source.wait_checks(1)[-1].seq
        before = procstate.settled(source.pid)

        figures = dump(source, out)
        assert figures["pages"]["total"] * PAGE >= spec.total_mib << 20
        seq_after = source.wait_checks(2)[0].seq
        assert source.status() == "running"
        procstate.assert_same(before)

        inspected = cli.run("inspect", out, "--json").expect(cli.DONE).json()
        assert_figures(inspected)
        for key in ("pause_ms", "pages", "bytes_written"):
            assert inspected[key] == figures[key]

        stream = out.with_name("stream")
        cli.run("convert", out, "--to", "qemu", "--out", stream).expect(0)
        restored = guests.restore(
            source,
            f"exec:cat {shlex.quote(str(stream))}",
            spec=spec.replace(user=None),  # root's file
        )
        start = assert_same_instant(source, restored, checks=3)
        assert seq_before <= start <= seq_after
        assert restored.stderr() == ""
        assert source.wait_checks(1)
        assert source.stderr() == ""
        guests.close()
        stream.unlink()


def test_restore_from_a_pipe(guests, out):
    source = guests.start(GuestSpec())
    dump(source, out)
    source.stop()
    command = [cli.program(), "convert", str(out), "--to", "qemu", "--out", "-"]
    restored = guests.restore(source, f"exec:{shlex.join(command)}")
    assert_same_instant(source, restored)
    assert restored.stderr() == ""


def test_two_restores_of_one_image(guests, out):
    """An image is not used up, and restores leave it as it is."""
    source = guests.start(GuestSpec())
    dump(source, out)
    source.kill()
    command = [cli.program(), "convert", str(out), "--to", "qemu", "--out", "-"]
    clones = [
        guests.restore(source, f"exec:{shlex.join(command)}") for _ in range(2)
    ]
    for clone in clones:
        assert_same_instant(source, clone)
    cli.run("verify", out).expect(cli.DONE)


def test_paused_guest_stays_paused(guests, out):
    source = guests.start(GuestSpec())
    source.wait_checks(1)
    source.stop()
    n_lines = len(source.verdicts())
    before = procstate.settled(source.pid)
    dump(source, out, running=False)
    assert source.status() == "paused"
    # QEMU takes a removed descriptor off its list but does not close it before
    # the machine runs again (monitor_fdset_cleanup).
    procstate.assert_same(before, but="/memfd:snapuffd")
    assert len(source.verdicts()) == n_lines

    command = [cli.program(), "convert", str(out), "--to", "qemu", "--out", "-"]
    restored = guests.restore(source, f"exec:{shlex.join(command)}",
                              paused=True)  # fmt: skip
    restored.wait("loaded state", lambda: restored.status() != "inmigrate")
    assert restored.status() in ("paused", "prelaunch")
    restored.cont()
    assert_same_instant(source, restored)

    source.cont()
    source.wait_checks(2)
    assert source.status() == "running"
    procstate.assert_same(before)


def nonzero_pages(path):
    """Numbers of the pages of a sparse file that are not zero."""
    zero = bytes(PAGE)
    found = set()
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        at = 0
        while at < size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA) // PAGE * PAGE
            except OSError:
                break
            file.seek(at)
            if file.read(PAGE).ljust(PAGE, b"\0") != zero:
                found.add(at // PAGE)
            at += PAGE
    return found


def assert_same_memory(memory, ram):
    """`memory` is what the guest sees, `ram` what is behind it."""
    # At 640 KiB .. 1 MiB it sees VGA and ROMs instead.
    window = range(0xA0000 // PAGE, 0x100000 // PAGE)
    n_pages = memory.stat().st_size // PAGE
    assert ram.stat().st_size == memory.stat().st_size
    with open(memory, "rb") as want, open(ram, "rb") as got:
        differ = [
            page for page in range(n_pages)
            if want.read(PAGE) != got.read(PAGE) and page not in window
        ]  # fmt: skip
    assert not differ, f"{ram.name}: {len(differ)} pages differ"


def test_image_is_the_memory_and_no_larger(guests, out, tmp_path):
    """Page for page what QEMU itself says a stopped guest holds, in as many
    blocks as that has non-zero pages, give or take 2 %."""
    spec = GuestSpec(judge={"mib": 32, "rate": 1000})
    source = guests.start(spec)
    source.wait_checks(1)
    source.stop()
    figures = dump(source, out, running=False)

    memory = source.dir / "memory"
    with source.qmp() as qmp:
        qmp.command("pmemsave", val=0, size=spec.mem_mib << 20,
                    filename=str(memory))  # fmt: skip
    assert_same_memory(memory, out / "pc.ram.pages")

    files = list(out.glob("*.pages"))
    n_data = sum(len(nonzero_pages(path)) for path in files)
    blocks = sum(path.stat().st_blocks * 512 for path in files)
    assert blocks <= n_data * PAGE * 1.02 + (64 << 10)
    assert figures["pages"]["data"] <= n_data * 1.02
    whole = sum(path.stat().st_blocks * 512 for path in out.iterdir())
    assert whole <= n_data * PAGE * 1.02 + (1 << 20)

    raw = tmp_path / "raw"
    cli.run("convert", out, "--to", "raw", "--out", raw).expect(cli.DONE)
    assert {p.stem for p in raw.iterdir()} == {p.stem for p in files}
    assert_same_memory(memory, raw / "pc.ram.raw")
    shutil.rmtree(raw)


def test_huge_pages_survive(guests, out):
    source = guests.start(GuestSpec(mem_mib=160))
    source.wait_checks(1)
    huge_before = procstate.huge_kib(source.pid)
    if huge_before < 32 << 10:
        pytest.skip(f"the guest has only {huge_before} KiB in huge pages")
    dump(source, out)
    source.wait_checks(1)
    assert procstate.huge_kib(source.pid) >= 0.9 * huge_before


@pytest.mark.parametrize("which", ["qmp_path", "monitor_path"])
def test_named_qmp_socket(guests, out, which):
    source = guests.start(GuestSpec())
    before = procstate.settled(source.pid)
    dump(source, out, "--qmp", getattr(source, which))
    source.wait_checks(1)
    procstate.assert_same(before)


def test_qmp_socket_of_one_of_two_is_busy(guests, out):
    source = guests.start(GuestSpec())
    with source.qmp():
        dump(source, out)
    source.wait_checks(1)


def test_out_is_relative(guests, out, monkeypatch):
    source = guests.start(GuestSpec())
    monkeypatch.chdir(out.parent)
    cli.run("dump", "--pid", source.pid, "--out", out.name).expect(cli.DONE)
    cli.run("verify", out).expect(cli.DONE)


def test_quiet_without_a_terminal(guests, out):
    source = guests.start(GuestSpec())
    result = cli.run("dump", "--pid", source.pid, "--out", out, "--quiet")
    assert result.expect(cli.DONE).err == ""
    assert "\r" not in result.out.decode()


def test_check_accepts_what_can_be_dumped(guests):
    source = guests.start(GuestSpec())
    before = procstate.settled(source.pid)
    cli.run("check").expect(cli.DONE)
    assert cli.run("check", "--json").expect(cli.DONE).json()
    assert cli.run("check", "--pid", source.pid, "--json").expect(0).json()
    source.wait_checks(1)
    procstate.assert_same(before)


@pytest.mark.slow
def test_twenty_dumps_in_a_row(guests, out):
    source = guests.start(GuestSpec(mem_mib=128))
    source.wait_checks(1)
    before = procstate.settled(source.pid)
    images = [out.with_name(f"image{i}") for i in range(20)]
    frozen = []
    for image in images:
        dump(source, image)
        frozen.append(source.last_judge().seq)
    source.wait_checks(2)
    procstate.assert_same(before)
    assert frozen == sorted(frozen)
    for image in images:
        command = [cli.program(), "convert", str(image), "--to", "qemu",
                   "--out", "-"]  # fmt: skip
        with source.restore(f"exec:{shlex.join(command)}") as restored:
            assert_same_instant(source, restored)


@pytest.mark.slow
def test_qemu_10(guests, out):
    try:
        qemu = qemu10()
    except GuestError as error:
        pytest.skip(f"no QEMU 10 to be had: {error}")
    source = guests.start(GuestSpec(qemu=qemu, vga="std", nic="e1000"))
    source.wait_checks(1)
    before = procstate.settled(source.pid)
    dump(source, out)
    source.wait_checks(2)
    procstate.assert_same(before)
    command = [cli.program(), "convert", str(out), "--to", "qemu", "--out", "-"]
    restored = guests.restore(source, f"exec:{shlex.join(command)}")
    assert_same_instant(source, restored)
    assert restored.stderr() == ""


def test_dump_of_a_restored_guest(guests, out):
    """A restored guest is a guest like any other."""
    source = guests.start(GuestSpec())
    dump(source, out)
    source.kill()
    command = [cli.program(), "convert", str(out), "--to", "qemu", "--out", "-"]
    incoming = f"exec:{shlex.join(command)}"
    restored = guests.restore(source, incoming)
    restored.wait_checks(1)
    second = out.with_name("image2")
    dump(restored, second)
    command[2] = str(second)
    with restored.restore(f"exec:{shlex.join(command)}") as again:
        assert_same_instant(restored, again)
