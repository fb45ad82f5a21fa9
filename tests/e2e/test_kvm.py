# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest under KVM: its writes come from the kernel's side, not from a thread
of QEMU.  The guest is a boot sector that writes its pages flat out and checks
what it overwrites; its step numbers in memory convict a torn image."""

import shlex

import pytest
from harness import bootsect, cli, procstate

SPEC = bootsect.spec(mem_mib=128)


@pytest.fixture(scope="module")
def kvm(module_guests):
    reason = bootsect.why_no_kvm()
    if reason:
        pytest.skip(reason)


@pytest.fixture
def source(kvm, guests):
    guest = guests.adopt(bootsect.BootSector(SPEC), ready=True)
    n = bootsect.n_pages(SPEC)
    # Every page was written twice at least: nothing is as it was at first.
    guest.wait("second round of writes",
               lambda: guest.lines()[-1].step > 2 * n)  # fmt: skip
    return guest


@pytest.mark.parametrize("ram", ["anon", "anon4k", "memfd"])
def test_dump_and_restore(kvm, guests, out, ram):
    spec = SPEC.replace(ram=ram)
    source = guests.adopt(bootsect.BootSector(spec), ready=True)
    step_before = source.wait_lines(2)[0].step
    before = procstate.settled(source.pid)

    result = cli.run("dump", "--pid", source.pid, "--out", out, "--json")
    figures = result.expect(cli.DONE).json()
    assert figures["pages"]["fault"] > 0, "nothing was written meanwhile"
    cli.run("verify", out).expect(cli.DONE)
    step_after = source.wait_lines(5)[1].step
    procstate.assert_same(before)

    raw = out.with_name("raw")
    cli.run("convert", out, "--to", "raw", "--out", raw).expect(cli.DONE)
    memory = max(raw.iterdir(), key=lambda path: path.stat().st_size)
    words = bootsect.first_words(memory, spec)
    assert bootsect.torn_pages(words) == []
    step = bootsect.next_step(words)
    assert step_before <= step <= step_after

    command = [cli.program(), "convert", str(out), "--to", "qemu", "--out", "-"]
    restored = guests.adopt(
        source.restore(f"exec:{shlex.join(command)}"), ready=True
    )
    # A whole round: each page was looked at before it was overwritten.
    restored.wait("round of writes", lambda: restored.lines()[-1].step
                  > step + bootsect.n_pages(spec))  # fmt: skip
    lines = restored.wait_lines(1)
    first = restored.lines()[0]
    assert first.step - sum(first.hist.values()) <= step <= lines[0].step
    assert not any(line.bad for line in restored.lines())
    assert restored.status() == "running"
    source.wait_lines(3)


def test_torn_memory_is_seen(source, tmp_path):
    """The check of the test above: a copy of memory that was made while the
    guest ran is torn, one of a stopped guest is not."""
    copies = [tmp_path / name for name in ("first", "second")]
    start, end = bootsect.ram_of(source)
    for copy in copies:
        with open(f"/proc/{source.pid}/mem", "rb", 0) as memory:
            memory.seek(start)
            copy.write_bytes(memory.read(end - start))
        source.wait_lines(3)
    words = [bootsect.first_words(copy, SPEC) for copy in copies]
    half = len(words[0]) // 2
    assert bootsect.torn_pages(words[0][:half] + words[1][half:])

    source.stop()
    path = tmp_path / "stopped"
    with source.qmp() as qmp:
        qmp.command("pmemsave", val=0, size=SPEC.mem_mib << 20,
                    filename=str(path))  # fmt: skip
    whole = bootsect.first_words(path, SPEC)
    assert bootsect.torn_pages(whole) == []
    one_older = [*whole]
    one_older[7] -= len(whole)
    assert bootsect.torn_pages(one_older) == [7]
    source.cont()
    source.wait_lines(2)
