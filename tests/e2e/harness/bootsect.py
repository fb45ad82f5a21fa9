# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest of one boot sector, tests/guest/bootsect.S, for hosts whose KVM boots
no Linux.  It sits in a ROM: no BIOS runs, which software KVMs take long for."""

import functools
import os
import struct
import subprocess
import time
from dataclasses import dataclass

from . import procstate
from .guest import GUEST_DIR, Guest, GuestError, GuestSpec

SOURCE = GUEST_DIR / "bootsect.S"
SECTOR_LEN = 512
PARAMETERS_AT = 0x1EC  # base, n_pages, factor, interval
BASE = 16 << 20  # of the pages that are written
FACTOR = 0x9E3779B1
PAGE_LEN = 4096
TICK_UNIT = 1024  # the sector's times
MODULUS = 1 << 32

ROM_LEN = 64 << 10  # ends at 1 MiB, its last 16 bytes are what a CPU starts at
_STUB_AT, _START_AT = 0xE000, 0xFFF0
# cli; cld; push cs; pop ds; xor ax,ax; mov es,ax; xor si,si; mov di,0x7c00;
# mov cx,256; rep movsw; jmp 0:0x7c00
_STUB = bytes.fromhex("fafc0e1f31c08ec031f6bf007cb90001f3a5ea007c0000")
_START = bytes.fromhex("ea00e000f0")  # jmp f000:e000


@dataclass(frozen=True)
class Line:
    """What it says each interval; times in seconds of the TSC."""

    start: float
    end: float
    step: int  # the next one
    bad: int
    max_ns: int
    hist: dict  # ns, lower end of the slot: stores


def spec(mem_mib=1024, accel="kvm", **changes):
    """Half of the memory is written."""
    written = mem_mib // 2 * (1 << 20)
    assert BASE + written <= mem_mib << 20, f"{mem_mib} MiB are too few"
    return GuestSpec(mem_mib=mem_mib, accel=accel, judge={}).replace(**changes)


def n_pages(guest_spec):
    return (guest_spec.mem_mib << 20) // 2 // PAGE_LEN


def _assemble(directory):
    obj, flat = directory / "bootsect.o", directory / "bootsect"
    for argv in (
        ["as", "--32", SOURCE, "-o", obj],
        ["ld", "-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary",
         obj, "-o", flat],
    ):  # fmt: skip
        done = subprocess.run(argv, capture_output=True, text=True)
        if done.returncode:
            raise GuestError(done.stderr.strip())
    sector = flat.read_bytes()
    assert len(sector) == SECTOR_LEN
    return sector


def _rom(directory, pages, interval):
    sector = bytearray(_assemble(directory))
    struct.pack_into("<4I", sector, PARAMETERS_AT, BASE, pages, FACTOR,
                     interval)  # fmt: skip
    rom = bytearray(ROM_LEN)
    rom[:SECTOR_LEN] = sector
    rom[_STUB_AT : _STUB_AT + len(_STUB)] = _STUB
    rom[_START_AT : _START_AT + len(_START)] = _START
    return bytes(rom)


class BootSector(Guest):
    """A running one; `lines()` is what it says."""

    ticks_per_interval = None  # a tenth of a second
    pages = None  # half of its memory

    def _prepare(self, disk):
        super()._prepare(disk)
        interval = self.ticks_per_interval or int(tsc_hz() / 10)
        self.rom_path = self.dir / "rom"
        pages = self.pages or n_pages(self.spec)
        self.rom_path.write_bytes(_rom(self.dir, pages, interval))

    def argv(self):
        argv = super().argv()
        for option in ("-kernel", "-initrd", "-append"):
            at = argv.index(option)
            del argv[at : at + 2]
        return [*argv, "-bios", str(self.rom_path)]

    def restore(self, incoming, spec=None, paused=False):
        return type(self)(spec or self.spec, incoming=incoming, paused=paused)

    def wait_ready(self, timeout=90):
        self.wait("line of the boot sector", self.lines, timeout)
        return self

    def lines(self):
        return [line for text in self.serial().split("\n")[:-1]
                if (line := parse(text, 1))]  # fmt: skip

    def wait_lines(self, n, timeout=60):
        """Waits for n further lines; asserts that memory is right."""
        start = len(self.lines())
        found = self.wait(
            f"{n} further lines",
            lambda: (x := self.lines()[start:])[n - 1 : n] and x,
            timeout,
        )
        assert not found[-1].bad, f"memory is torn: {found[-1]}"
        return found


def parse(text, ticks_per_s):
    """One line; None for what is none."""
    try:
        kind, *words = text.rstrip("\r").split(" ")
        numbers = [int(word, 16) for word in words]
        start, end, step, bad, longest, *slots = numbers
    except ValueError:
        return None
    if kind != "K" or len(words[-1]) != 8:
        return None
    ns = 1e9 / ticks_per_s
    hist = {}
    for word in slots:
        exponent, mantissa = divmod(word >> 24, 4)
        lower = round(2**exponent * (1 + mantissa / 4) * ns)
        hist[lower] = hist.get(lower, 0) + (word & 0xFFFFFF)
    unit = TICK_UNIT / ticks_per_s
    return Line(start * unit, end * unit, step, bad, round(longest * ns), hist)


class _Probe(BootSector):
    ticks_per_interval = 1 << 26
    pages = 256


@functools.cache
def _probe():
    """(reason why not, ticks of the TSC per second)"""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "/dev/kvm is not there, or not for us", None
    try:
        with _Probe(spec(512)) as guest:
            seen = []

            def look():
                lines = guest.lines()
                if lines and (not seen or lines[-1] != seen[-1][1]):
                    seen.append((time.monotonic(), lines[-1]))
                return len(seen) > 1 and seen[-1][0] - seen[0][0] > 2

            guest.wait("boot sector under KVM", look, 40)
    except (GuestError, OSError) as error:
        return f"KVM does not run the boot sector: {error}", None
    (t0, first), (t1, last) = seen[0], seen[-1]
    return None, (last.end - first.end) / (t1 - t0)


def why_no_kvm():
    """None where KVM runs the boot sector."""
    return _probe()[0]


def tsc_hz():
    reason, hz = _probe()
    if reason:
        raise GuestError(reason)
    return hz


def first_words(path, guest_spec):
    """The step numbers in memory, a file of the guest's RAM from 0 on."""
    return words(path, n_pages(guest_spec))


def words(path, n):
    """The same of `n` pages."""
    found = []
    with open(path, "rb") as ram:
        for page in range(n):
            ram.seek(BASE + page * PAGE_LEN)
            found.append(int.from_bytes(ram.read(4), "little"))
    return found


def next_step(words):
    """The step that is not in memory yet: one past the newest."""
    half = MODULUS // 2
    ahead = max((w - words[0] + half) % MODULUS for w in words) - half
    return words[0] + ahead + 1


def torn_pages(words):
    """Pages that no single instant explains: at step S each page holds the
    last of the steps S - n .. S - 1 that is its own.  S is what the newest page
    says.  Returns the page numbers."""
    n = len(words)
    end = next_step(words)
    steps = range(end - n, end)
    want = [0] * n
    for step in steps:
        want[step * FACTOR % n] = step % MODULUS
    return [page for page in range(n) if words[page] != want[page]]


def ram_of(guest):
    """(start, end) of its RAM in QEMU: its largest mapping."""
    mappings = procstate.capture(guest.pid).mappings
    found = [m for m in mappings
             if m.end - m.start >= guest.spec.mem_mib << 20]  # fmt: skip
    ram = min(found, key=lambda m: m.end - m.start)
    return ram.start, ram.start + (guest.spec.mem_mib << 20)


__all__ = ["BootSector", "Line", "first_words", "n_pages", "next_step", "parse",
           "ram_of", "spec", "torn_pages", "tsc_hz",
           "why_no_kvm", "words"]  # fmt: skip
