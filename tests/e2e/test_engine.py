# SPDX-License-Identifier: GPL-2.0-or-later
"""What the capture engine promises of the target: huge pages stay, memory that
was never touched stays untouched, the work of the freeze does not grow with the
RAM, buffers keep within their bounds.  Nothing here asserts on absolute times."""

import json
import os
import shlex
import subprocess
import time

import pytest
from harness import cli, procstate
from harness.guest import GuestSpec

MIB = 1 << 20
PAGE = 4096


def dump(guest, out, *options):
    result = cli.run("dump", "--pid", guest.pid, "--out", out, "--json",
                     *options).expect(cli.DONE)  # fmt: skip
    return result.json()


def proc_field(pid, name, field):
    """A field of /proc/PID/name, in bytes."""
    with open(f"/proc/{pid}/{name}", encoding="utf-8") as text:
        for line in text:
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    raise AssertionError(f"no {field}")


def rollup(pid, field):
    return proc_field(pid, "smaps_rollup", field)


def restore(guests, source, out):
    command = [cli.program(), "convert", str(out), "--to", "qemu", "--out", "-"]
    restored = guests.restore(source, f"exec:{shlex.join(command)}")
    restored.wait_checks(2)
    restored.close()


def test_huge_pages_stay_huge(guests, out):
    source = guests.start(GuestSpec(mem_mib=512, judge={"mib": 256}))
    source.wait_checks(1)
    before = rollup(source.pid, "AnonHugePages")
    if before < 128 * MIB:
        pytest.skip("the host gives QEMU no transparent huge pages")
    figures = dump(source, out)
    assert figures["faults"]["count"] > 0
    source.wait_checks(2)
    assert rollup(source.pid, "AnonHugePages") >= 0.9 * before


def test_memory_that_was_never_touched_stays_so(guests, out):
    source = guests.start(GuestSpec(mem_mib=4096, judge={"mib": 64}))
    source.wait_checks(1)
    rss = rollup(source.pid, "Rss")
    tables = proc_field(source.pid, "status", "VmPTE")
    figures = dump(source, out)
    assert figures["pages"]["total"] >= 4096 * MIB // PAGE
    assert figures["bytes_written"] < 768 * MIB
    source.wait_checks(1)
    # The guest itself goes on touching pages now and then.
    assert rollup(source.pid, "Rss") <= rss * 1.01 + 4 * MIB
    assert proc_field(source.pid, "status", "VmPTE") <= tables + MIB
    used = sum(f.stat().st_blocks * 512 for f in out.iterdir())
    assert used < 768 * MIB


def test_the_freeze_does_not_grow_with_ram(guests, out):
    """Of memory in small pages, under load: how much is protected while the VM
    stands still is a matter of the last moments before, not of size."""
    rearmed = {}
    for mem_mib in (256, 2048):
        spec = GuestSpec(ram="memfd", mem_mib=mem_mib,
                         judge={"mib": mem_mib // 2})  # fmt: skip
        source = guests.start(spec)
        source.wait_checks(1)
        counts = []
        for i in range(3):
            image = out.with_name(f"image-{mem_mib}-{i}")
            figures = dump(source, image)
            assert figures["noted_pages"] >= figures["rearmed_pages"]
            counts.append(figures["rearmed_pages"])
            subprocess.run(["rm", "-rf", str(image)], check=True)
        rearmed[mem_mib] = sorted(counts)[1]
        guests.close()
    all_pages = 2048 * MIB // PAGE
    assert rearmed[2048] < all_pages // 50, rearmed


def test_buffers_keep_within_their_bounds(guests, out):
    """A slow disk, few buffers, the heaviest load: the guest waits, the dumper
    does not grow, and the snapshot is right."""
    source = guests.start(GuestSpec(mem_mib=512, judge={"mib": 256}))
    source.wait_checks(1)
    buffer = 64 * MIB
    args = [cli.program(), "dump", "--pid", str(source.pid), "--out", str(out),
            "--json", "--buffer", "64M", "--rate-limit", "150"]  # fmt: skip
    with subprocess.Popen(args, stdout=subprocess.PIPE) as process:
        output = process.stdout.read()
        _, wait_status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(wait_status)
    assert process.returncode == 0
    figures = json.loads(output)
    assert 0 < figures["peak_buffer_bytes"] <= buffer
    assert usage.ru_maxrss * 1024 <= buffer + 64 * MIB
    rate = figures["bytes_written"] / (figures["duration_ms"] / 1000)
    assert rate < 1.2 * 150 * MIB
    source.wait_checks(1)
    restore(guests, source, out)


@pytest.mark.parametrize(
    "options",
    [
        ("--no-io-uring",),
        ("--no-direct",),
        ("--no-io-uring", "--no-direct"),
        ("--granule", "4K"),
        ("--granule", "2M", "--buffer", "16M"),
    ],
    ids=lambda options: "-".join(options).replace("--", ""),
)
def test_options_change_nothing_but_speed(guests, out, options):
    source = guests.start(GuestSpec(ram="anon4k"))
    source.wait_checks(1)
    before = procstate.settled(source.pid)
    dump(source, out, *options)
    cli.run("verify", out).expect(cli.DONE)
    source.wait_checks(1)
    procstate.assert_same(before)
    restore(guests, source, out)


def test_output_on_tmpfs(guests, tmp_path):
    """No O_DIRECT there."""
    out = f"/dev/shm/snapuffd-test-{os.getpid()}"
    source = guests.start(GuestSpec())
    try:
        dump(source, out)
        cli.run("verify", out).expect(cli.DONE)
    finally:
        subprocess.run(["rm", "-rf", out], check=True)


def test_progress_as_json(guests, out):
    source = guests.start(GuestSpec())
    result = cli.run("dump", "--pid", source.pid, "--out", out, "--json",
                     "--progress", "json", "--rate-limit", "60")  # fmt: skip
    result.expect(cli.DONE)
    events = [json.loads(line) for line in result.err.splitlines()]
    assert len(events) >= 2
    assert events == sorted(events, key=lambda event: event["elapsed_ms"])
    for event in events:
        assert event["pages_written"] <= event["pages_all"]
        assert event["pages_captured"] <= event["pages_all"]
    assert result.json()["complete"] is True


def test_progress_on_a_terminal(guests, out):
    """One line, rewritten, and gone in the end."""
    source = guests.start(GuestSpec())
    command = shlex.join([cli.program(), "dump", "--pid", str(source.pid),
                          "--out", str(out), "--rate-limit", "60"])  # fmt: skip
    started = time.monotonic()
    shown = subprocess.run(
        ["script", "-qec", command, "/dev/null"], stdin=subprocess.DEVNULL,
        capture_output=True, check=True, timeout=120,
    ).stdout.decode()  # fmt: skip
    assert time.monotonic() - started > 0.5
    assert "captured 100 %" in shown and "faults/s" in shown
    assert shown.count("\r\x1b[K") >= 3
    assert "pause" in shown.split("\x1b[K")[-1]
