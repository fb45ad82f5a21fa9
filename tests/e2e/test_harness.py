# SPDX-License-Identifier: GPL-2.0-or-later
"""The harness itself, without snapuffd: guests judge themselves clean, QEMU's
own migration restores every machine that the other tests use, and the judge
convicts torn memory that is fed on purpose."""

import contextlib
import os

import pytest
from harness import host, judge, procstate, stream
from harness.guest import GuestSpec

MACHINES = {
    "pc": GuestSpec(),
    "q35-2cpu-vga-e1000": GuestSpec(
        machine="q35", smp=2, vga="std", nic="e1000"
    ),
    "small-pages-thp-in-guest": GuestSpec(
        ram="anon4k", judge={"mib": 32, "thp": 1}
    ),
    "memfd-virtio-disk": GuestSpec(ram="memfd", disk="raw"),
    "file-virtio-net": GuestSpec(ram="file", nic="virtio-net-pci"),
    "hugetlb": GuestSpec(ram="hugetlb"),
    "numa": GuestSpec(ram="numa", mem_mib=160, judge={"mib": 64}),
    "dimm": GuestSpec(ram="dimm", mem_mib=128, judge={"mib": 128}),
    "unprivileged": GuestSpec(user="nobody"),
}


@pytest.mark.parametrize("spec", MACHINES.values(), ids=MACHINES.keys())
def test_migrated_guest_is_clean(guests, tmp_path, spec):
    hugetlb = spec.ram == "hugetlb"
    with contextlib.ExitStack() as stack:
        if hugetlb:
            stack.enter_context(host.huge_pages(2 * spec.mem_mib))
        source = guests.start(spec)
        before = source.wait_checks(2)[-1]
        source.stop()
        path = source.migrate_to(source.dir / "stream")
        restored = guests.restore(source, f"exec:cat '{path}'")
        restored.wait_status("paused")
        restored.cont()
        first = restored.wait_checks(2)[0]
        assert first.seq > before.seq
        assert restored.stderr() == ""
        assert source.stderr() == ""
        guests.close()


@pytest.mark.parametrize(
    "options",
    [
        {"mib": 32, "mode": "seq"},
        {"mib": 32, "mode": "idle"},
        {"mib": 32, "rate": 5000, "check_ms": 500},
        {"mib": 32, "buckets": 1},
    ],
    ids=lambda o: ",".join(f"{k}={v}" for k, v in o.items()),
)
def test_judge_options(guests, options):
    guest = guests.start(GuestSpec(judge=options))
    assert guest.pages() == 8192
    found = guest.wait_checks(3)
    if options.get("mode") == "idle":
        assert {v.seq for v in found} == {8192}
    if "rate" in options:
        assert 3500 < found[-1].rate < 5500
    if "buckets" in options:
        seen = judge.buckets(guest.serial())
        assert len(seen) > 10
        assert seen[-1].t_ms > seen[0].t_ms
        assert sum(b.writes for b in seen) > 0


@pytest.mark.parametrize(
    "mode, torn", [("random", "newer"), ("random", "older"), ("idle", "other")]
)
def test_torn_memory_is_convicted(guests, tmp_path, mode, torn):
    """One page of another instant, among thousands, in the stream."""
    source = guests.start(GuestSpec(judge={"mib": 32, "mode": mode}))
    source.wait_checks(1)
    streams = []
    for name in ("first", "second"):
        source.stop()
        path = source.migrate_to(source.dir / name)
        streams.append(bytearray(path.read_bytes()))
        path.unlink()
        source.cont()
        source.wait_checks(1)
    source.kill()

    into, donor = streams[::-1] if torn == "older" else streams
    targets = stream.ram_pages(into)
    donors = stream.ram_pages(donor)
    if mode == "idle":
        # Nothing is written: any other page of the judge's does as well.
        pages = [
            at for at in targets.values()
            if judge.page_step(into[at : at + stream.PAGE_LEN]) is not None
        ]  # fmt: skip
        pairs = list(zip(pages, reversed(pages)))
        donor = into
    else:
        pairs = [(targets[key], donors[key])
                 for key in targets.keys() & donors.keys()]  # fmt: skip
    spliced = stream.tear(into, donor, pairs)

    path = tmp_path / "torn"
    path.write_bytes(into)
    restored = guests.restore(source, f"exec:cat '{path}'")
    restored.wait_status("paused")
    restored.cont()
    verdict = restored.wait_checks(1, clean=False)[0]
    path.unlink()
    assert not verdict.clean
    assert (verdict.want, verdict.got) == spliced
    assert verdict.bad == 1


def test_untampered_streams_hold_the_judge(guests, tmp_path):
    """Every judged page is found: the splice test picks from all."""
    source = guests.start(GuestSpec())
    source.stop()
    path = source.migrate_to(source.dir / "stream")
    data = path.read_bytes()
    steps = {
        judge.page_step(data[at : at + stream.PAGE_LEN])
        for at in stream.ram_pages(data).values()
    } - {None}
    assert len(steps) >= source.pages()


def test_process_state(guests):
    """A QEMU that nobody dumps does not change in what we compare, and what a
    sloppy dump would leave is seen."""
    guest = guests.start(GuestSpec(nic="e1000", disk="raw"))
    guest.wait_checks(1)
    before = procstate.settled(guest.pid)
    guest.stop()
    guest.cont()
    guest.wait_checks(2)
    procstate.assert_same(before)
    os.kill(guest.pid, 19)  # SIGSTOP
    with pytest.raises(AssertionError, match="state T"):
        procstate.assert_same(before, patience=0.3)
    os.kill(guest.pid, 18)
    with guest.qmp(), pytest.raises(AssertionError, match="descriptors of"):
        procstate.assert_same(before, patience=0.3)
    procstate.assert_same(before)


def test_qemu_registering_its_ram_is_seen(guests):
    """QEMU's own background snapshot leaves traces while it runs."""
    guest = guests.start(GuestSpec(ram="anon4k"))
    with guest.qmp() as qmp:
        qmp.command(
            "migrate-set-capabilities",
            capabilities=[{"capability": "background-snapshot", "state": True}],
        )
        qmp.command("migrate", uri="exec:sleep 1000")
        guest.wait(
            "registered RAM",
            lambda: procstate.traces_left(procstate.capture(guest.pid)),
        )


def test_nothing_is_left(guests):
    guest = guests.start(GuestSpec(ram="file"), ready=False)
    paths = [guest.dir, guest.shm_dir]
    assert all(path.exists() for path in paths)
    pid = guest.pid
    guests.close()
    assert not any(path.exists() for path in paths)
    assert not os.path.exists(f"/proc/{pid}")
