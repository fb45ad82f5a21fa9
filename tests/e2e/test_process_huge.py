# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes with hugetlb memory, private and shared, which they write to all
the time."""

import re
import shutil
from pathlib import Path

import pytest
from harness import cli, host, memory, process, victim
from harness.core import Core
from harness.memory import ANON, HUGE, HUGE_SHARED

N_DUMPS = 6
#: The journal's halves are of one kind each.
BOTH = ANON | HUGE | HUGE_SHARED
JOURNAL = "huge-journal=3,0,4096"


@pytest.fixture
def huge_start(start, targets):
    """Starts victims that find huge pages, which are given back after them."""

    def huge_start(*words, bits=BOTH, **options):
        target = start(*words, **options)
        Path(f"/proc/{target.pid}/coredump_filter").write_text(hex(bits))
        return target

    with host.huge_pages(64):
        yield huge_start
        targets.close()


def huge_kib(pid):
    """Of the process, private and shared."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"^HugetlbPages:\s+(\d+) kB", text, re.M)[1])


def journal_mappings(out):
    """Of the image, those that hold the journal: of each kind."""
    found = cli.run("inspect", out, "--json").expect(cli.DONE).json()
    return [m for m in found["mappings"] if m["held"] and
            ("anon_hugepage" in m["name"] or "victim-journal" in m["name"])]  # fmt: skip


def test_written_all_the_time(huge_start, judge, out):
    target = huge_start(JOURNAL, "registers")
    seqs, n_faults = [], 0
    with process.unharmed(target):
        before = huge_kib(target.pid)
        for _ in range(N_DUMPS):
            dumped = process.dump(target.pid, out)
            seqs.append(judge(dumped.core).journal["seq"])
            n_faults += dumped.figures["faults"]["count"]
            kinds = {m["prot"][3] for m in journal_mappings(out)}
            assert kinds == {"p", "s"}
            shutil.rmtree(out)
        target.command("check")
        assert huge_kib(target.pid) == before
    assert seqs == sorted(set(seqs))
    assert n_faults


@pytest.mark.parametrize("kind", ["huge", "huge-discard"])
def test_memory_that_comes_and_goes(huge_start, judge, out, kind):
    """Also what was mapped when the dump had looked at the pages' sizes."""
    target = huge_start("journal=1", f"churn={kind}")
    codes = []
    for _ in range(2 * N_DUMPS):
        dumped = process.dump(target.pid, out, "--hold-unmaps=yes",
                              allow=(cli.DONE, cli.INCONSISTENT))  # fmt: skip
        codes.append(dumped.code)
        if dumped.code == cli.DONE:
            judge(dumped.core)
            shutil.rmtree(out)
        process.assert_clean(target.pid)
    assert codes == [cli.DONE] * len(codes)
    values = victim.rows(target.command("churn"))[kind][1]
    assert values["failed"] == 0 and values["rounds"] > 0


SPARSE = """
import mmap, sys
HUGETLB = 0x40000
hole = mmap.mmap(-1, 32 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | HUGETLB)
other = mmap.mmap(-1, 32 << 20, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | HUGETLB)
for memory in (hole, other):
    memory[4 << 20] = memory[20 << 20] = 1
print("ready", flush=True)
for line in sys.stdin:
    memory[8 << 20] = hole[8 << 20] = 1
    print("done more", flush=True)
"""


def test_pages_that_are_not_there_stay_away(huge_start, targets, out):
    """Nothing is allotted by us in the process, nor in the pool."""
    target = targets.start(["/usr/bin/python3", "-c", SPARSE], "^ready$")
    Path(f"/proc/{target.pid}/coredump_filter").write_text(hex(BOTH))
    free = host.free_huge_pages()
    assert huge_kib(target.pid) == 8 << 10
    with process.unharmed(target):
        process.dump(target.pid, out)
        assert huge_kib(target.pid) == 8 << 10
        assert host.free_huge_pages() == free
    target.command("more")
    assert huge_kib(target.pid) == 12 << 10
    blocks = sum(p.stat().st_blocks // 2 for p in out.iterdir())
    assert blocks < 64 << 10


@pytest.mark.parametrize("bits", [0, ANON, HUGE, HUGE_SHARED, BOTH], ids=hex)
def test_coredump_filter(huge_start, out, tmp_path, bits):
    """As the kernel's own core of the same process has it."""
    target = huge_start(f"huge-memory={tmp_path}", bits=bits, cwd=tmp_path)
    with process.unharmed(target):
        core = process.dump(target.pid, out).core
    blocks = memory.where(target)
    needed = memory.BLOCKS | memory.HUGE_BLOCKS
    assert blocks.keys() == needed.keys()
    held = memory.held(blocks, core)
    assert held == {name for name in blocks if needed[name] & bits}
    theirs = process.kernel_core(target, tmp_path / "theirs")
    assert held == memory.held(blocks, theirs)
    # All of a page, and not just what is looked at.
    for name in held & memory.HUGE_BLOCKS.keys():
        at, _ = blocks[name]
        assert Core(core).read(at, 2 << 20) == Core(theirs).read(at, 2 << 20)
