# SPDX-License-Identifier: GPL-2.0-or-later
"""The harness for processes, without snapuffd: gdb's own cores, which are made
of a process that stands still, are found right, and the judges convict what is
of two instants."""

import os
import shutil
import subprocess
import time

import pytest
from harness import process, procstate, victim
from harness.core import Core
from harness.victim import Torn


@pytest.fixture
def judged(start, judge):
    """A victim, and a judge of its cores."""
    return start("journal=3", "registers", "churn=unmap,discard,remap"), judge


def test_still_process_is_found_right(judged, tmp_path):
    target, judge = judged
    for i in range(3):
        core = tmp_path / f"core{i}"
        process.gcore(target.pid, core)
        facts = judge(core)
        assert facts.journal["n_pages"] == 1024
        assert {b["name"] for b in facts.blocks} == {
            "unmap", "discard", "remap"
        }  # fmt: skip
        assert process.tids(target.pid) == {t["tid"] for t in facts.threads}
        assert set(Core(core).tids()) == process.tids(target.pid)
        core.unlink()
    target.command("check")


def test_two_instants_are_convicted(judged, tmp_path):
    """Half of the pages, or one of them, are of a later core."""
    target, judge = judged
    cores = [tmp_path / name for name in ("first", "second", "one")]
    process.gcore(target.pid, cores[0])
    journal = judge(cores[0]).journal
    process.gcore(target.pid, cores[1])
    shutil.copy(cores[0], cores[2])

    victim.tear(cores[0], cores[1], journal)
    with pytest.raises(Torn, match="512 of 1024 pages"):
        judge(cores[0])
    victim.tear(cores[2], cores[1], journal, every=2048)
    with pytest.raises(Torn, match="1 of 1024 pages"):
        judge(cores[2])
    judge(cores[1])


def test_registers_of_another_instant_are_convicted(judged, tmp_path):
    target, judge = judged
    core = tmp_path / "core"
    process.gcore(target.pid, core)
    facts = judge(core)
    at = int(process.gdb(target.exe, core, "print/d &registers.page").split()[-1])
    Core(core).write(at, (facts.counter + 2).to_bytes(8, "little"))
    with pytest.raises(Torn, match="registers: its page"):
        judge(core)


def test_copy_of_a_running_process_is_convicted(judged, tmp_path):
    """What a dumper would get that stops nothing."""
    target, judge = judged
    core = tmp_path / "core"
    process.gcore(target.pid, core)
    journal = judge(core).journal
    with open(f"/proc/{target.pid}/mem", "rb", buffering=0) as memory:
        for page in range(journal["n_pages"]):
            at = journal["at"] + page * process.PAGE
            memory.seek(at)
            Core(core).write(at, memory.read(process.PAGE))
    with pytest.raises(Torn, match="journal at step"):
        judge(core)


@pytest.mark.parametrize(
    "change, found",
    [
        ({"n_done": 4}, "page 5 of 8, 4 done"),
        ({"step": 8}, "page 0"),
        ({"state": victim.WHOLE}, "page 6 of 8, 8 done"),
    ],
)
def test_block_is_convicted(change, found):
    stamped = b"".join(
        b"".join(
            word.to_bytes(8, "little") + bytes(n)
            for word, n in zip(victim._stamp(7), (2040, 2032, 0))
        )
        for _ in range(6)
    )
    block = {"name": "x", "at": 0, "step": 7, "n_pages": 8, "n_done": 6,
             "state": victim.FILLING}  # fmt: skip
    data = stamped + bytes(2 * process.PAGE)
    assert victim.judge_block(block, data) == 6
    with pytest.raises(Torn, match=found):
        victim.judge_block({**block, **change}, data)
    with pytest.raises(Torn, match="nothing at"):
        victim.judge_block(block, None)


def test_interrupted_waits_are_seen(start, tmp_path):
    """gdb stops with SIGSTOP, which some calls do not survive."""
    target = start("wait")
    process.gcore(target.pid, tmp_path / "core")
    rows = victim.rows(target.command("wake"))
    assert rows["read"] == ("woken", {"got": 107, "want": 107})
    assert rows["epoll_wait"] == ("early", {"got": -4, "want": 107})


def test_waits_are_woken(start):
    target = start("wait")
    rows = victim.rows(target.command("wake"))
    assert len(rows) > 20
    for name, (word, values) in rows.items():
        assert word == "woken" and values["got"] == values["want"], name


def test_traces_are_seen(start):
    """A stopped process, a descriptor more."""
    target = start()
    with pytest.raises(AssertionError, match="state T"):
        with process.unharmed(target):
            os.kill(target.pid, 19)  # SIGSTOP
            time.sleep(0.1)
    os.kill(target.pid, 18)
    assert target.was_job_stopped()
    procstate.settled(target.pid)
    with process.unharmed(target):
        pass
    assert not target.was_job_stopped()


def test_nothing_is_left(targets, tmp_path):
    target = targets.start(
        ["sh", "-c", "sleep 1000 & echo child $!; wait"]
    )
    child = int(target.wait_line(r"child (\d+)")[1])
    assert process.descendants(target.pid) == {child}
    targets.close()
    for pid in (target.pid, child):
        done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)],
                              capture_output=True, text=True)  # fmt: skip
        assert done.stdout.strip() [:1] in ("", "Z")
