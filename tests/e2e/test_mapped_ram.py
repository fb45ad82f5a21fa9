# SPDX-License-Identifier: GPL-2.0-or-later
"""convert --to mapped-ram: the seekable file that QEMU 9.0 and later load,
with and without multifd, is what QEMU itself would have written."""

import mmap
import os
import shutil
import struct
import subprocess
from dataclasses import dataclass

import pytest
from harness import cli, host, judge
from harness.guest import GuestError, GuestSpec
from harness.guest import qemu10 as fetch_qemu10

PAGE = 4096
MIB = 1 << 20

GUESTS = {
    "pc": GuestSpec(vga="std", nic="e1000"),  # with ROMs
    "q35-memfd": GuestSpec(machine="q35", ram="memfd", smp=2, disk="raw"),
}

# How it is loaded: further capabilities, parameters.
WAYS = {
    "plain": ([], {}),
    "multifd": (["multifd"], {"multifd_channels": 4}),
    "direct-io": (["multifd"], {"multifd_channels": 3, "direct_io": True}),
}


@pytest.fixture(scope="module")
def qemu10():
    try:
        return fetch_qemu10()
    except GuestError as error:
        pytest.skip(f"no QEMU 10 to be had: {error}")


def convert(image, target, *prefix):
    return cli.run("convert", image, "--to", "mapped-ram", "--out", target,
                   prefix=prefix)  # fmt: skip


def dump_and_convert(guest, out):
    cli.run("dump", "--pid", guest.pid, "--out", out).expect(cli.DONE)
    target = out.with_name("mapped")
    convert(out, target).expect(cli.DONE)
    return target


def load(guests, source, path, capabilities=(), **parameters):
    restored = guests.restore(source, "defer")
    restored.load(f"file:{path}", ["mapped-ram", *capabilities], **parameters)
    return restored


@dataclass
class Block:
    """A block's part of a file, mapped at `data`."""

    data: mmap.mmap
    length: int
    bitmap: int
    pages: int

    def bit(self, page):
        return self.bitmap + page // 8, 1 << page % 8

    def present(self, page):
        at, mask = self.bit(page)
        return bool(self.data[at] & mask)

    def page(self, page):
        """Zeros where none is present: the destination's RAM is fresh."""
        if not self.present(page):
            return bytes(PAGE)
        at = self.pages + page * PAGE
        return self.data[at : at + PAGE]


def parse(path):
    """{name: Block}, up to the devices."""
    with open(path, "r+b") as file:
        data = mmap.mmap(file.fileno(), 0)
    at = 0

    def take(form):
        nonlocal at
        values = struct.unpack_from(">" + form, data, at)
        at += struct.calcsize(">" + form)
        return values[0] if len(values) == 1 else values

    def take_bytes(length):
        nonlocal at
        at += length
        return data[at - length : at]

    assert take("IIB") == (0x5145564D, 3, 7)
    take_bytes(take("I"))
    while (kind := take("B")) == 5:
        assert take_bytes(take("B")) == b"configuration/capabilities"
        version, count = take("II")
        names = [take_bytes(take("B")) for _ in range(count)]
        assert b"mapped-ram" in names
    assert kind == 1
    section = take("I")
    assert take_bytes(take("B")) == b"ram"
    assert take("II") == (0, 4)
    word = take("Q")
    assert word % PAGE == 4
    left = word & -PAGE
    blocks = {}
    while left:
        name = take_bytes(take("B")).decode()
        length = take("Q")
        version, page_size, bitmap, pages = take("IQQQ")
        assert (version, page_size, pages % MIB) == (1, PAGE, 0)
        blocks[name] = Block(data, length, bitmap, pages)
        at = pages + length
        left -= length
    assert take("QBI") == (0x10, 0x7E, section)
    return blocks


def allocated(*paths):
    return sum(path.stat().st_blocks * 512 for path in paths)


@pytest.mark.parametrize("spec", GUESTS.values(), ids=GUESTS.keys())
def test_restore(guests, out, qemu10, spec):
    source = guests.start(spec.replace(qemu=qemu10))
    seq_before = source.wait_checks(1)[-1].seq
    target = dump_and_convert(source, out)
    seq_after = source.wait_checks(2)[0].seq
    assert target.stat().st_mode & 0o777 == 0o600
    # Holes stay holes; the headers of a block take two of the file's blocks.
    pages = allocated(*out.glob("*.pages"))
    assert allocated(target) <= pages * 1.02 + MIB
    whole = target.read_bytes()
    known = {v.seq for v in source.verdicts()} | {source.judge_start}
    source.kill()

    for capabilities, parameters in WAYS.values():
        with source.restore("defer") as restored:
            restored.load(f"file:{target}", ["mapped-ram", *capabilities],
                          **parameters)  # fmt: skip
            first = restored.wait_checks(3)[0]
            start = first.seq - first.writes
            assert start in known
            assert seq_before <= start <= seq_after
            assert restored.stderr() == ""
    assert target.read_bytes() == whole
    target.unlink()


def test_same_as_qemus_own(guests, out, qemu10):
    """Every page of every block of a guest that stands still."""
    source = guests.start(GUESTS["pc"].replace(qemu=qemu10))
    source.wait_checks(1)
    source.stop()
    target = dump_and_convert(source, out)
    own = out.with_name("own")
    with source.qmp() as qmp:
        qmp.command("migrate-set-capabilities", capabilities=[
            {"capability": "mapped-ram", "state": True}])  # fmt: skip
        qmp.command("migrate", uri=f"file:{own}")
        source.wait(
            "migration's end",
            lambda: qmp.command("query-migrate")["status"] == "completed",
        )
    source.kill()

    got, want = parse(target), parse(own)
    assert {n: b.length for n, b in got.items()} == {
        n: b.length for n, b in want.items()
    }
    assert len(want) > 3
    for name, block in want.items():
        n_pages = block.length // PAGE
        differ = [page for page in range(n_pages)
                  if got[name].page(page) != block.page(page)]  # fmt: skip
        assert not differ, f"{name}: {len(differ)} pages differ"
        # What has a ROM file beneath must not be left to it.
        if block.length <= 64 * MIB:
            assert all(map(got[name].present, range(n_pages))), name
    assert allocated(target) <= allocated(own) * 1.02 + MIB
    target.unlink()
    own.unlink()


def test_missing_page_is_convicted(guests, out, qemu10):
    """One bit that is not set, and the judge of the guest says so."""
    source = guests.start(GuestSpec(qemu=qemu10))
    source.wait_checks(1)
    target = dump_and_convert(source, out)
    source.kill()
    ram = parse(target)["pc.ram"]
    page = next(p for p in range(ram.length // PAGE)
                if judge.page_step(ram.page(p)) is not None)  # fmt: skip
    at, mask = ram.bit(page)
    ram.data[at] ^= mask
    verdict = load(guests, source, target).wait_checks(1, clean=False)[0]
    assert not verdict.clean
    assert verdict.bad == 1
    target.unlink()


def test_dumped_from_an_older_qemu(guests, out, qemu10):
    """The machine type is what counts, where QEMU's firmware agrees."""
    spec = GuestSpec(machine="pc-i440fx-7.2")
    source = guests.start(spec)
    source.wait_checks(1)
    target = dump_and_convert(source, out)
    source.kill()
    restored = source.restore("defer", spec=spec.replace(qemu=qemu10))
    guests.adopt(restored, ready=False)
    restored.load(f"file:{target}", ["mapped-ram"])
    restored.wait_checks(2)
    target.unlink()


@pytest.fixture(scope="module")
def image(module_guests, tmp_path_factory):
    """Of whatever QEMU there is: it is not loaded."""
    path = tmp_path_factory.mktemp("images") / "image"
    guest = module_guests.start(GuestSpec())
    cli.run("dump", "--pid", guest.pid, "--out", path).expect(cli.DONE)
    guest.kill()
    yield path
    shutil.rmtree(path)


def test_not_to_stdout(image):
    result = convert(image, "-").expect_error(cli.USAGE, "stdout")
    assert not result.out


def test_existing_output_is_refused(image, tmp_path):
    target = tmp_path / "precious"
    target.write_text("data")
    convert(image, target).expect_error(cli.FAILED, "exists")
    assert target.read_text() == "data"


def test_damaged_image(image, tmp_path):
    pages = max(image.glob("*.pages"), key=allocated)
    with open(pages, "r+b", buffering=0) as file:
        at = os.lseek(file.fileno(), 0, os.SEEK_DATA)
        byte = os.pread(file.fileno(), 1, at)
        os.pwrite(file.fileno(), bytes([byte[0] ^ 4]), at)
        target = tmp_path / "mapped"
        convert(image, target).expect_error(cli.FAILED, "checksum")
        assert not target.exists()
        os.pwrite(file.fileno(), byte, at)
    convert(image, target).expect(cli.DONE)
    target.unlink()


@pytest.mark.parametrize("form", ["mapped-ram", "raw"])
def test_blocks_are_shared(image, tmp_path, form):
    """Where the file system can, a conversion takes no space, and reads as
    one that was copied."""
    copied = tmp_path / "copied"
    cli.run("convert", image, "--to", form, "--out", copied).expect(cli.DONE)
    with host.btrfs(512) as place:
        subprocess.run(["cp", "-a", "--sparse=always", image, place],
                       check=True)  # fmt: skip

        def used():
            os.sync()
            space = os.statvfs(place)
            return (space.f_blocks - space.f_bfree) * space.f_frsize

        before = used()
        shared = place / "shared"
        cli.run("convert", place / image.name, "--to", form,
                "--out", shared).expect(cli.DONE)  # fmt: skip
        assert used() - before < 4 * MIB
        assert allocated(*image.glob("*.pages")) > 16 * MIB
        subprocess.run(["diff", "-rq", copied, shared], check=True)
    if form == "raw":
        shutil.rmtree(copied)
    else:
        copied.unlink()


def test_full_disk(image):
    with host.tmpfs("size=1m") as place:
        convert(image, place / "mapped").expect_error(cli.FAILED, "No space")
        assert not list(place.iterdir())
