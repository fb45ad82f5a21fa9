# SPDX-License-Identifier: GPL-2.0-or-later
"""What holds on every kernel that can be dumped on, old ones too: few and
short, for test_old_kernels.py runs them all in a guest under TCG."""

import os
import shutil
import signal

import pytest
from harness import bootsect, cli, host, process, procstate, victim


def dump_in_a_row(target, judge, out, *options, n=1):
    """None fails, each is right."""
    for _ in range(n):
        judge(process.dump(target.pid, out, *options).core)
        shutil.rmtree(out)
        process.assert_clean(target.pid)
    for name, (_, values) in victim.rows(target.command("churn")).items():
        assert values["failed"] == 0, (name, values)
    target.command("check")


def test_check():
    """It says what is missing, and that the rest is enough."""
    report = cli.run("check", "--json").expect(cli.DONE).json()
    assert report["ok"] is True
    text = cli.run("check").expect(cli.DONE).out.decode()
    for name, there in report["kernel"].items():
        line, = (line for line in text.splitlines()
                 if line.startswith(f"  {name}  "))  # fmt: skip
        assert line[len(name) + 2 :].split()[0] == ("yes" if there else "no")


def test_core_is_of_one_instant(start, judge, out, tmp_path):
    target = start("journal=2,0,4096", "registers")
    with process.unharmed(target):
        before = int(target.command("check")[0].split()[1])
        dumped = process.dump(target.pid, out)
        after = int(target.command("check")[0].split()[1])
    facts = judge(dumped.core)
    assert before <= facts.journal["seq"] <= after
    assert {t["tid"] for t in facts.threads} == process.tids(target.pid)
    converted = tmp_path / "core"
    cli.run("convert", out, "--to", "core", "--out",
            converted).expect(cli.DONE)  # fmt: skip
    assert converted.read_bytes() == dumped.core.read_bytes()


def test_new_pages(start, judge, out):
    """Pages that come to be meanwhile, where there were none: those of before
    the instant are in the core, the others are not."""
    target = start("journal=1", "churn=holes,grow")
    dump_in_a_row(target, judge, out, n=2)


def test_discards_lose_nothing(start, judge, out):
    target = start("journal=1", "churn=discard")
    dump_in_a_row(target, judge, out)


def test_heap(start, judge, out):
    """Its mappings come and go, are divided and merged."""
    target = start("journal=1", "churn=free,threads,protect")
    dump_in_a_row(target, judge, out, "--hold-unmaps=yes")


def test_shared_memory_of_a_tree(start, judge, out):
    target = start("journal=1,1")
    with process.unharmed(target):
        cli.run("dump", "--pid", target.pid, "--tree", "--out",
                out).expect(cli.DONE)  # fmt: skip
        target.command("check")
    facts = [judge(core) for core in out.glob("*/memory.core")]
    assert len(facts) == 2
    assert len({f.journal["seq"] for f in facts}) == 1


def test_killed_dump_leaves_the_process_whole(start, out):
    target = start("journal=1", "registers", "churn=discard")
    # No thread is about to start: it would block signals for a moment.
    host.wait_for(lambda: victim.rows(target.command("churn"))["discard"][1]
                  ["rounds"] > 2)  # fmt: skip
    with process.unharmed(target):
        with cli.Running("dump", "--pid", target.pid, "--out", out) as dump:
            assert dump.hold_when_armed(target.pid)
            os.kill(dump.engine(), signal.SIGKILL)
            assert dump.wait().code != cli.DONE
        process.assert_clean(target.pid)
        target.command("check")


class _BootSector(bootsect.BootSector):
    ticks_per_interval = 1 << 28
    pages = 2048


@pytest.mark.parametrize("ram", ["anon4k", "memfd"])
def test_vm(out, ram):
    """A guest that writes memory flat out, without KVM."""
    host.require_root()
    if not shutil.which("qemu-system-x86_64"):
        pytest.skip("qemu-system-x86_64 is not installed")
    spec = bootsect.spec(64, "tcg", ram=ram)
    with _BootSector(spec) as source:
        source.wait_ready()
        dump_vm(source, out)


def dump_vm(source, out):
    source.wait("round of writes",
                lambda: source.lines()[-1].step > 2 * source.pages)  # fmt: skip
    before = procstate.settled(source.pid)
    figures = cli.run("dump", "--pid", source.pid, "--out", out,
                      "--json").expect(cli.DONE).json()  # fmt: skip
    assert figures["kind"] == "qemu"
    cli.run("verify", out).expect(cli.DONE)
    procstate.assert_same(before)
    source.wait_lines(2)
    raw = out.with_name("raw")
    cli.run("convert", out, "--to", "raw", "--out", raw).expect(cli.DONE)
    memory = max(raw.iterdir(), key=lambda path: path.stat().st_size)
    words = bootsect.words(memory, source.pages)
    assert bootsect.torn_pages(words) == []
    assert any(words)
