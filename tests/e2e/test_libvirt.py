# SPDX-License-Identifier: GPL-2.0-or-later
"""Domains of a real libvirtd, dumped by name through libvirt's own monitor: the
domain is as plain XML makes it, and libvirt sees no more than a short pause."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from harness import cli, host, procstate
from harness.clone import Clone
from harness.guest import GuestSpec, assert_same_instant
from harness.libvirt import Daemons, Domain, virsh

STUB = Path(__file__).parent / "harness" / "libvirt_stub.c"


@pytest.fixture(scope="module")
def daemons(guest_files):
    daemons = Daemons()
    yield daemons
    daemons.close()


@pytest.fixture(scope="module")
def shared(daemons):
    with Domain(f"snapuffd-test-{os.getpid()}") as domain:
        yield domain.wait_ready()


@pytest.fixture
def domain(daemons, shared):
    """One for all tests, which each leaves as it was."""
    yield shared
    if virsh("list", check=False).returncode:
        daemons.start()
    assert shared.state() == "running"
    shared.wait_checks(1)


def couriers():
    """Those that run; a courier has no business to outlive a dump."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/comm"):
        try:
            if entry.read_text().strip() in ("snapuffd-courie",
                                             "snapuffd-depot"):
                found.append(int(entry.parent.name))
        except OSError:
            pass
    return found


def dump(domain, out, *options):
    result = cli.run("dump", "--domain", domain.name, "--out", out, "--json",
                     *options).expect(cli.DONE)  # fmt: skip
    cli.run("verify", out).expect(cli.DONE)
    assert not couriers()
    return result.json()


class LooseClone(Clone):
    """A domain's VM outside of libvirt, whose log file it had from libvirt."""

    @property
    def serial_path(self):
        return self.dir / "charserial0"


def assert_goes_on(source, image):
    with LooseClone(source.spec, image) as clone:
        assert_same_instant(source, clone)


@pytest.mark.parametrize("ram", ["anon", "memfd"])
def test_dump_by_name(daemons, domain, out, ram):
    source = domain
    if ram != "anon":
        source = Domain(f"snapuffd-{ram}-{os.getpid()}", GuestSpec(ram=ram))
        source.wait_ready()
    try:
        source.wait_checks(1)
        before = procstate.settled(source.pid)
        figures = dump(source, out)
        assert figures["kind"] == "qemu" and figures["pause_ms"] > 0
        procstate.assert_same(before)
        assert source.state() == "running"
        source.wait_checks(2)
        assert_goes_on(source, out)
    finally:
        if source is not domain:
            source.close()


def test_dump_by_uuid_and_again(domain, tmp_path):
    uuid = virsh("domuuid", domain.name)
    for name in (uuid, domain.name):
        image = tmp_path / name
        cli.run("dump", "--domain", name, "--out", image).expect(cli.DONE)
        cli.run("verify", image).expect(cli.DONE)
        shutil.rmtree(image)
    assert not couriers()


def test_stream(domain):
    """The courier must not hold the stream's end open."""
    result = cli.run("dump", "--domain", domain.name, "--out", "-",
                     "--format", "qemu").expect(cli.DONE)  # fmt: skip
    assert result.out.startswith(b"QEVM")
    assert not couriers()


def test_check(domain):
    report = cli.run("check", "--domain", domain.name,
                     "--json").expect(cli.DONE).json()  # fmt: skip
    assert report["ok"] and report["kind"] == "qemu"
    assert report["state"] == "running"
    assert not couriers()


def test_paused_domain_stays_paused(domain, out):
    domain.stop()
    try:
        figures = dump(domain, out)
        assert figures["pause_ms"] == 0
        assert domain.state() == "paused"
    finally:
        domain.cont()


def test_libvirt_goes_on_with_it(domain, out, tmp_path):
    """suspend, resume, save, restore, a dump: all after one."""
    dump(domain, out)
    shutil.rmtree(out)
    domain.stop()
    assert domain.state() == "paused"
    domain.cont()
    virsh("managedsave", domain.name)
    assert domain.state() == "shut off"
    domain.boot()
    domain.wait_checks(2)
    dump(domain, out)


def test_shutdown(daemons, out):
    with Domain(f"snapuffd-down-{os.getpid()}") as domain:
        domain.wait_ready()
        dump(domain, out)
        virsh("shutdown", domain.name, "--mode", "acpi")
        virsh("destroy", domain.name)
        assert domain.state() == "shut off"
        cli.run("dump", "--domain", domain.name, "--out", "none").expect_error(
            cli.REFUSED, "shut off"
        )


# libvirt's daemon dies


def test_daemon_restarts_while_memory_is_captured(daemons, domain, out):
    with cli.Running("dump", "--domain", domain.name, "--out", out,
                     "--rate-limit", "40") as dump:  # fmt: skip
        host.wait_for(lambda: procstate.is_registered(domain.pid))
        time.sleep(0.2)
        daemons.restart()
        dump.wait().expect(cli.DONE)
    cli.run("verify", out).expect(cli.DONE)
    assert not couriers()


def test_daemon_dies_in_the_pause(daemons, domain, out):
    """The VM is let run by the monitor itself, which is free by then."""
    cli.run("dump", "--domain", domain.name, "--out", out, "--exec-frozen",
            f"kill -9 {daemons.pid}").expect(cli.DONE)  # fmt: skip
    daemons.reap()
    domain.wait_checks(2)
    daemons.start()
    assert domain.state() == "running"
    cli.run("verify", out).expect(cli.DONE)
    assert not couriers()


def test_daemon_restarts_in_the_pause(daemons, domain, out):
    cli.run("dump", "--domain", domain.name, "--out", out, "--exec-frozen",
            f"kill -9 {daemons.pid}; setsid libvirtd -d").expect(
                cli.DONE)  # fmt: skip
    daemons.reap()
    domain.wait_checks(2)
    assert domain.state() == "running"
    # Ours again, so that it ends with the tests.
    pid = int(Path("/run/libvirtd.pid").read_text())
    os.kill(pid, signal.SIGTERM)
    host.wait_for(lambda: virsh("list", check=False).returncode)
    daemons.start()


# we die


def killer(tmp_path, *names):
    """A command that kills all processes of a name, as the kernel cuts it."""
    script = tmp_path / "kill"
    script.write_text(
        "#!/bin/sh\n"
        "for comm in /proc/[0-9]*/comm; do\n"
        '\tcase $(cat "$comm" 2>/dev/null) in\n'
        f'\t{"|".join(name[:15] for name in names)})\n'
        '\t\tpid=${comm#/proc/}\n'
        '\t\tkill -9 "${pid%/comm}" ;;\n'
        "\tesac\n"
        "done\nsleep 1\n"
    )
    return f"sh {script}"


def test_dumper_killed_in_the_pause(domain, out, tmp_path):
    before = procstate.settled(domain.pid)
    result = cli.run(
        "dump", "--domain", domain.name, "--out", out, "--exec-frozen",
        killer(tmp_path, "snapuffd", "snapuffd-engine"),
    )  # fmt: skip
    assert result.code not in (0, cli.REFUSED)
    host.wait_for(lambda: domain.state() == "running")
    domain.wait_checks(2)
    host.wait_for(lambda: not couriers())
    procstate.assert_same(before, but="/memfd:snapuffd")
    assert not out.exists()
    dump(domain, out)


def test_courier_killed_in_the_pause(domain, out, tmp_path):
    """Nobody else could continue the VM: another takes its place."""
    before = procstate.settled(domain.pid)
    result = cli.run(
        "dump", "--domain", domain.name, "--out", out, "--exec-frozen",
        killer(tmp_path, "snapuffd-courier"),
    ).expect(cli.DONE)  # fmt: skip
    assert "killed by signal 9" in result.err
    cli.run("verify", out).expect(cli.DONE)
    domain.wait_checks(2)
    assert not couriers()
    procstate.assert_same(before)


# what is refused


def test_no_such_domain(daemons, out):
    cli.run("dump", "--domain", "no-such", "--out", out).expect_error(
        cli.REFUSED, "no domain of that name")  # fmt: skip
    assert not out.exists()


@pytest.mark.parametrize("way", ["option", "environment"])
def test_remote_uri(out, way, monkeypatch):
    uri = "qemu+ssh://root@elsewhere.invalid/system"
    options = ["--connect", uri] if way == "option" else []
    if way == "environment":
        monkeypatch.setenv("LIBVIRT_DEFAULT_URI", uri)
    cli.run("dump", "--domain", "vm", "--out", out, *options).expect_error(
        cli.REFUSED, "another host")  # fmt: skip


def test_other_driver(daemons, out):
    cli.run("dump", "--domain", "test", "--out", out, "--connect",
            "test:///default").expect_error(cli.REFUSED, "driver")  # fmt: skip


def test_no_daemon(out):
    """Also the words of libvirt itself stay one line."""
    if virsh("list", check=False).returncode == 0:
        pytest.skip("one runs")
    cli.run("dump", "--domain", "vm", "--out", out).expect_error(cli.REFUSED)


@pytest.mark.parametrize(
    "environment, with_files, word",
    [
        ({"STUB_VERSION": "8001000"}, True, "too old"),
        ({}, False, "too old"),
        ({"STUB_JOB": "1"}, True, "job"),
    ],
    ids=["old-daemon", "old-library", "job"],
)
def test_refusals_of_a_stub(tmp_path, out, environment, with_files, word):
    for name in ("libvirt.so.0", "libvirt-qemu.so.0"):
        subprocess.run(
            ["cc", "-shared", "-fPIC", *(["-DWITH_FILES"] * with_files),
             "-o", tmp_path / name, STUB],
            check=True,
        )  # fmt: skip
    words = [f"{k}={v}" for k, v in environment.items()]
    cli.run("dump", "--domain", "vm", "--out", out,
            prefix=["env", f"LD_LIBRARY_PATH={tmp_path}", *words]
            ).expect_error(cli.REFUSED, word)  # fmt: skip


def test_pid_of_a_domain_names_it(domain, out):
    """Its monitor is libvirt's; the line says what to type instead."""
    cli.run("dump", "--pid", domain.pid, "--out", out).expect_error(
        cli.REFUSED, f"--domain {domain.name}")  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [
        ("dump", "--connect", "qemu:///system", "--pid", "1", "--out", "x"),
        ("dump", "--domain", "vm", "--qmp", "y", "--out", "x"),
        ("dump", "--domain", "", "--out", "x"),
        ("check", "--domain", "vm", "--pid", "1"),
        ("check", "--connect", "qemu:///system"),
    ],
)
def test_usage(arguments):
    cli.run(*arguments).expect(cli.USAGE)
