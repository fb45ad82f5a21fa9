# SPDX-License-Identifier: GPL-2.0-or-later
"""The victim (tests/e2e/victim/) and the judge of its cores."""

import json
import shutil
import struct
import subprocess
from pathlib import Path

from . import process
from .core import Core

SOURCES = Path(__file__).resolve().parents[1] / "victim"
SCRIPT = Path(__file__).with_name("victim_gdb.py")
PAGE = 4096
#: All that shows of which instant a core is.
BUSY = ("journal=3", "registers", "timers")
STAMP_FACTOR = 0x9E3779B97F4A7C15
JOURNAL_FACTOR = 0x9E3779B1
TLS_BASE = 0x7150715071500000
MASK = 2**64 - 1


class Torn(AssertionError):
    """The core is not of one instant."""


def build(place):
    """The path of the program; without liburing it has no wait for a ring."""
    exe = place / "victim"
    argv = ["cc", "-O1", "-g", "-std=gnu17", "-D_GNU_SOURCE", "-Wall",
            "-Wextra", "-Wno-missing-field-initializers", "-pthread",
            "-o", exe, *sorted(SOURCES.glob("*.c"))]  # fmt: skip
    for more in (["-DWITH_URING", "-luring"], []):
        done = subprocess.run([*argv, *more], capture_output=True, text=True)
        if done.returncode == 0:
            return exe
    raise AssertionError(done.stderr)


def _words(page):
    first, = struct.unpack_from("<Q", page, 0)
    middle, = struct.unpack_from("<Q", page, PAGE // 2)
    last, = struct.unpack_from("<Q", page, PAGE - 8)
    return first, middle, last


def _stamp(step):
    return step, step * STAMP_FACTOR & MASK, ~step & MASK


def pages(data):
    return [data[at : at + PAGE] for at in range(0, len(data), PAGE)]


def judge_journal(seq, data):
    """`data` is what the core has of the journal's pages, of which the last
    step is `seq`.  Returns how many pages were looked at."""
    found = list(map(_words, pages(data)))
    n_pages = len(found)
    wrong = []
    for step in range(seq - n_pages + 1, seq + 1):
        page = step * JOURNAL_FACTOR % n_pages
        if found[page] == _stamp(step):
            continue
        if step == seq:
            # Under way: of each word either, the new ones first.
            mixes = [_stamp(seq)[:i] + _stamp(seq - n_pages)[i:]
                     for i in range(4)]  # fmt: skip
            if found[page] in mixes:
                continue
        wrong.append((page, step, found[page][0]))
    if wrong:
        page, want, got = wrong[0]
        raise Torn(
            f"journal at step {seq}: {len(wrong)} of {n_pages} pages are of "
            f"another instant; page {page} has step {got}, not {want}"
        )
    return n_pages


FILLING, WHOLE = 1, 2


def judge_block(block, data):
    """A block of memory that comes and goes; `data` None: is not there."""
    name, step, state = block["name"], block["step"], block["state"]
    if state not in (FILLING, WHOLE):
        return 0
    if data is None:
        raise Torn(f"{name}: nothing at {block['at']:#x}")
    n_done = block["n_pages"] if state == WHOLE else block["n_done"]
    for i, page in enumerate(pages(data)):
        words = _words(page)
        if i < n_done:
            right = words == _stamp(step)
        elif i == n_done:
            right = all(word in (0, want)
                        for word, want in zip(words, _stamp(step)))  # fmt: skip
        else:
            right = words == (0, 0, 0)
        if not right:
            raise Torn(
                f"{name}: page {i} of {block['n_pages']}, {n_done} done, has "
                f"{words[0]:#x}, not step {step}"
            )
    return n_done


def judge_registers(thread, memory):
    """A thread that counts in a register, a vector register and a page."""
    assert "registers_count" in thread["frames"], thread
    count = thread["r12"]
    for what, value in (("its page", memory), ("xmm15", thread["xmm15"])):
        if value not in (count, count - 1):
            raise Torn(f"registers: {what} has {value}, r12 {count}")


class Facts:
    """What gdb reads in a core of the victim."""

    def __init__(self, exe, core, place):
        place.mkdir(exist_ok=True)
        self.core = Path(core)
        self.out = process.gdb(
            exe, core, f"source {SCRIPT}", env={"VICTIM_FACTS": str(place)}
        )
        found = json.loads((place / "facts.json").read_text())
        self.threads = found["threads"]  # those of gdb
        self.table = found["table"]  # those of the victim: tid, name
        self.journal = found["journal"]
        self.blocks = found["blocks"]
        self.counter = found["counter"]
        self._place = place

    def data(self, name):
        path = self._place / name
        return path.read_bytes() if path.exists() else None

    def thread(self, name):
        """The first of the victim's threads of that name."""
        tid = next(row["tid"] for row in self.table if row["name"] == name)
        return next(t for t in self.threads if t["tid"] == tid)


def judge(exe, core, place):
    """Convicts a core that is not of one instant; else returns the facts."""
    facts = Facts(exe, core, place)
    try:
        if facts.journal:
            judge_journal(facts.journal["seq"], facts.data("journal"))
        for block in facts.blocks:
            judge_block(block, facts.data(block["name"]))
        by_tid = {thread["tid"]: thread for thread in facts.threads}
        for row in facts.table:
            if row["tid"] not in by_tid:
                raise Torn(f"no thread {row['tid']}, {row['name']}")
            thread = by_tid[row["tid"]]
            if thread["tls"] not in (None, TLS_BASE ^ row["tid"]):
                raise Torn(f"{row}: its TLS has {thread['tls']:#x}")
            if row["name"] == "registers":
                judge_registers(thread, facts.counter)
    finally:
        shutil.rmtree(place)
    return facts


def tear(core, donor, journal, every=2):
    """Pages of the journal in `core`, each `every`th, become those of
    `donor`, as if they had been copied at its instant."""
    into, other = Core(core), Core(donor)
    for page in range(0, journal["n_pages"], every):
        at = journal["at"] + page * PAGE
        into.write(at, other.read(at, PAGE))



def rows(lines):
    """Reports of the victim: name -> (word, {key: value})."""
    found = {}
    for line in lines:
        words = line.split()
        if words[0] not in ("wait", "timed", "churn", "timers", "memory"):
            continue
        values = dict(word.split("=") for word in words if "=" in word)
        plain = [word for word in words[1:] if "=" not in word]
        name, word = [*plain, "", ""][:2]
        found[name or words[0]] = (word, {k: int(v) for k, v in values.items()})
    return found
