# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest under load is copied into another QEMU through a pipe while it runs
on; and what the reader of that pipe does never hurts it."""

import contextlib
import errno
import fcntl
import json
import os
import re
import shlex
import signal
import socket
import stat
import subprocess
import termios
import threading
import time

import pytest
from harness import cli, host, procstate, stream
from harness.guest import GuestSpec, assert_same_instant
from harness.procstate import unharmed

MIB = 1 << 20


def arguments(guest, *options):
    return ["dump", "--pid", str(guest.pid), "--format", "qemu", "--out", "-",
            *options]  # fmt: skip


@contextlib.contextmanager
def dump_into(stdout, guest, *options):
    """A dump under way; `stdout` is handed over."""
    with cli.Running(*arguments(guest, *options), stdout=stdout) as running:
        os.close(stdout)
        yield running


@contextlib.contextmanager
def pipe():
    """Both ends; the one to write into, a number, is handed over."""
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb", buffering=0) as reader:
        yield reader, writer


def queued(reader):
    """Bytes in a pipe."""
    return int.from_bytes(
        fcntl.ioctl(reader, termios.FIONREAD, bytes(4)), "little"
    )


def wait_until_full(guest, reader):
    """A page that was not filled up takes the room of one."""
    size = fcntl.fcntl(reader, fcntl.F_GETPIPE_SZ)
    guest.wait("full pipe", lambda: queued(reader) > size * 0.8)
    # Now the buffers fill as well.
    time.sleep(1)


class Relay(threading.Thread):
    """Carries all from one descriptor to the other, both of which it closes,
    no faster than so many bytes a second."""

    def __init__(self, reader, writer, rate):
        super().__init__()
        self._fds, self._rate = (reader, writer), rate
        self.n_bytes = 0
        self.start()

    def run(self):
        reader, writer = self._fds
        started = time.monotonic()
        while data := os.read(reader, 64 << 10):
            while data:
                data = data[os.write(writer, data) :]
            self.n_bytes += 64 << 10
            due = started + self.n_bytes / self._rate
            time.sleep(max(0, due - time.monotonic()))
        os.close(reader)
        os.close(writer)


def connect(path):
    """The descriptor of a connection to a QEMU that waits there."""
    deadline = time.monotonic() + 30
    while True:
        with socket.socket(socket.AF_UNIX) as sock:
            try:
                sock.connect(str(path))
                return sock.detach()
            except (FileNotFoundError, ConnectionRefusedError):
                assert time.monotonic() < deadline, f"nobody listens at {path}"
        time.sleep(0.02)


def open_fifo(path):
    """To write into, once somebody reads."""
    try:
        writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        assert error.errno == errno.ENXIO, error
        return None
    os.set_blocking(writer, True)
    return writer


def start_reader(guests, source, kind, place):
    """A QEMU that waits for its stream, and what to write that into."""
    path = place / "incoming"
    if kind == "stdin":
        reader, writer = os.pipe()
        restored = guests.restore(source, "fd:0", stdin=reader)
        os.close(reader)
        return restored, writer
    if kind == "unix":
        restored = guests.restore(source, f"unix:{path}")
        return restored, connect(path)
    os.mkfifo(path)
    restored = guests.restore(source, f"exec:cat {shlex.quote(str(path))}")
    return restored, restored.wait("reader", lambda: open_fifo(path))


# clones


@pytest.mark.parametrize(
    "kind, spec",
    [
        ("stdin", GuestSpec()),
        ("unix", GuestSpec(ram="memfd", disk="raw")),
        ("fifo", GuestSpec(machine="q35", smp=2, vga="std", nic="e1000")),
        ("fifo", GuestSpec(ram="anon4k")),
        ("unix", GuestSpec(ram="dimm", mem_mib=128, judge={"mib": 128})),
    ],
    ids=["stdin", "unix-memfd-disk", "fifo-q35-vga", "fifo-small-pages",
         "unix-dimm"],
)  # fmt: skip
def test_clone(guests, tmp_path, kind, spec):
    source = guests.start(spec)
    source.wait_checks(1)
    restored, stdout = start_reader(guests, source, kind, tmp_path)
    with unharmed(source):
        with dump_into(stdout, source, "--quiet") as running:
            result = running.wait().expect(cli.DONE)
    assert result.err == ""
    assert_same_instant(source, restored, checks=3)
    assert restored.stderr() == ""
    assert source.wait_checks(1)
    assert source.stderr() == ""


def test_clone_through_a_pipe_of_qemus_own(guests, tmp_path):
    source = guests.start(GuestSpec())
    err, code = tmp_path / "err", tmp_path / "code"
    command = shlex.join([cli.program(), *arguments(source)])
    with unharmed(source):
        restored = guests.restore(
            source, f"exec:{command} 2>{err}; echo $? >{code}"
        )
        restored.wait("end of the dump", lambda: code.exists())
    assert_same_instant(source, restored)
    assert code.read_text() == "0\n"
    # The summary, where stdout is taken.
    assert re.search(r"^stream +stdout$", err.read_text(), re.M)
    assert re.search(r"^pause ", err.read_text(), re.M)


def test_clone_through_a_slow_pipe(guests, tmp_path):
    """Few buffers, the heaviest load, 20 MiB a second: the source waits, the
    dumper does not grow, and both guests are right."""
    source = guests.start(GuestSpec())
    source.wait_checks(1)
    restored, stdout = start_reader(guests, source, "fifo", tmp_path)
    with unharmed(source):
        reader, writer = os.pipe()
        relay = Relay(reader, stdout, 20 * MIB)
        process = subprocess.Popen(
            [cli.program(), *arguments(source, "--buffer", "16M")],
            stdout=writer, stderr=subprocess.PIPE,
        )  # fmt: skip
        os.close(writer)
        with process:
            summary = process.stderr.read().decode()
            _, wait_status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(wait_status)
        relay.join()
    assert process.returncode == cli.DONE, summary
    assert re.search(r"^buffers +16\.0 MiB at most$", summary, re.M), summary
    assert usage.ru_maxrss * 1024 <= 80 * MIB
    assert_same_instant(source, restored, checks=3)
    assert restored.stderr() == ""


def test_figures_of_a_stream_in_a_file(guests, tmp_path):
    source = guests.start(GuestSpec())
    source.wait_checks(1)
    out = tmp_path / "stream"
    with unharmed(source):
        figures = cli.run(
            "dump", "--pid", source.pid, "--format", "qemu", "--out", out,
            "--json",
        ).expect(cli.DONE).json()  # fmt: skip
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert figures["complete"] is True
    assert figures["bytes_written"] == out.stat().st_size
    pages = figures["pages"]
    assert pages["total"] == pages["data"] + pages["zero"]
    # No page of zeros goes over the wire.
    data = out.read_bytes()
    found = stream.ram_pages(data)
    zero = bytes(stream.PAGE_LEN)
    assert len(found) == pages["data"]
    assert zero not in {
        data[at : at + stream.PAGE_LEN] for at in found.values()
    }
    restored = guests.restore(source, f"exec:cat {shlex.quote(str(out))}")
    assert_same_instant(source, restored)


def test_torn_stream_is_noticed(guests, tmp_path):
    """That the tests above can fail: one page of another instant."""
    source = guests.start(GuestSpec())
    streams = []
    for name in ("first", "second"):
        source.wait_checks(1)
        out = tmp_path / name
        cli.run("dump", "--pid", source.pid, "--format", "qemu", "--out",
                out).expect(cli.DONE)  # fmt: skip
        streams.append(bytearray(out.read_bytes()))
    into, donor = streams
    pages, donors = map(stream.ram_pages, streams)
    common = pages.keys() & donors.keys()
    spliced = stream.tear(
        into, donor, [(pages[key], donors[key]) for key in common]
    )
    torn = tmp_path / "torn"
    torn.write_bytes(into)
    restored = guests.restore(source, f"exec:cat {shlex.quote(str(torn))}")
    verdict = restored.wait_checks(1, clean=False)[0]
    assert not verdict.clean
    assert (verdict.want, verdict.got) == spliced


# readers


@pytest.fixture(scope="module")
def target(module_guests):
    """A guest for all tests that must leave it as it is."""
    guest = module_guests.start(GuestSpec())
    guest.wait_checks(1)
    return guest


@pytest.mark.parametrize("n_bytes", [0, 5 * MIB], ids=["at-once", "midway"])
def test_reader_dies(target, n_bytes):
    with unharmed(target), pipe() as (reader, writer):
        with dump_into(writer, target) as running:
            left = n_bytes
            while left:
                left -= len(reader.read(min(left, 64 << 10)))
            reader.close()
            running.wait().expect_error(cli.FAILED, "its reader ended")


def test_peer_of_a_socket_dies(target):
    ours, theirs = socket.socketpair()
    with unharmed(target), ours:
        with dump_into(theirs.detach(), target) as running:
            ours.recv(MIB)
            ours.close()
            running.wait().expect_error(cli.FAILED, "stdout")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("buffer", ["16M", "1G"])
def test_interrupted_while_the_reader_stalls(target, buffer, name):
    """The target waits for buffers; or all is captured, and only the dumper
    waits."""
    with unharmed(target), pipe() as (reader, writer):
        with dump_into(writer, target, "--buffer", buffer) as running:
            wait_until_full(target, reader)
            running.signal(getattr(signal, name))
            running.wait(timeout=30).expect_error(cli.FAILED, "interrupted")


def test_interrupted_while_a_socket_stalls(target):
    ours, theirs = socket.socketpair()
    with unharmed(target), ours:
        with dump_into(theirs.detach(), target) as running:
            ours.recv(1)
            time.sleep(1)
            running.signal(signal.SIGINT)
            running.wait(timeout=30).expect_error(cli.FAILED, "interrupted")


def test_convert_is_interrupted_while_the_reader_stalls(target, out):
    cli.run("dump", "--pid", target.pid, "--out", out).expect(cli.DONE)
    with pipe() as (reader, writer):
        with cli.Running("convert", out, "--to", "qemu", "--out", "-",
                         stdout=writer) as running:  # fmt: skip
            os.close(writer)
            wait_until_full(target, reader)
            running.signal(signal.SIGINT)
            running.wait(timeout=30).expect_error(cli.FAILED, "interrupted")


def test_killed_while_the_reader_stalls(target):
    """The reader sees the end, and nothing is left protected."""
    with unharmed(target), pipe() as (reader, writer):
        with dump_into(writer, target, "--buffer", "16M") as running:
            wait_until_full(target, reader)
            running.signal(signal.SIGKILL)
            running.process.communicate()
        while reader.read(MIB):
            pass


def test_stalled_reader_takes_the_rest_after_all(guests, tmp_path):
    source = guests.start(GuestSpec())
    source.wait_checks(1)
    restored, stdout = start_reader(guests, source, "fifo", tmp_path)
    with unharmed(source), pipe() as (reader, writer):
        with dump_into(writer, source, "--buffer", "16M") as running:
            wait_until_full(source, reader)
            relay = Relay(os.dup(reader.fileno()), stdout, 1 << 40)
            running.wait().expect(cli.DONE)
            relay.join()
    assert_same_instant(source, restored, checks=3)


def test_target_dies_while_the_reader_stalls(guests):
    source = guests.start(GuestSpec())
    source.wait_checks(1)
    with pipe() as (reader, writer):
        with dump_into(writer, source, "--buffer", "16M") as running:
            wait_until_full(source, reader)
            source.kill()
            running.wait(timeout=30).expect_error(cli.FAILED, "died")


def test_target_may_die_once_it_is_captured(guests, tmp_path):
    """What is still to be read is no matter of the source any more."""
    source = guests.start(GuestSpec())
    source.wait_checks(1)
    restored, stdout = start_reader(guests, source, "fifo", tmp_path)
    with pipe() as (reader, writer):
        with dump_into(writer, source, "--buffer", "1G") as running:
            wait_until_full(source, reader)
            source.wait("end of capture",
                        lambda: not procstate.is_registered(source.pid))
            source.kill()
            relay = Relay(os.dup(reader.fileno()), stdout, 1 << 40)
            running.wait().expect(cli.DONE)
            relay.join()
    assert_same_instant(source, restored)


# where it goes


def test_refused_target_writes_nothing():
    with subprocess.Popen(["sleep", "1000"]) as process:
        try:
            result = cli.run("dump", "--pid", process.pid, "--format", "qemu",
                             "--out", "-")  # fmt: skip
        finally:
            process.kill()
    result.expect_error(cli.USAGE, "QEMU")
    assert result.out == b""


def test_file_exists(target, tmp_path):
    out = tmp_path / "precious"
    out.write_text("data")
    with unharmed(target):
        cli.run(
            "dump", "--pid", target.pid, "--format", "qemu", "--out", out
        ).expect_error(cli.FAILED, "exists")  # fmt: skip
    assert out.read_text() == "data"


def test_file_system_is_full(target):
    with host.tmpfs("size=8m") as place, unharmed(target):
        out = place / "stream"
        cli.run(
            "dump", "--pid", target.pid, "--format", "qemu", "--out", out
        ).expect_error(cli.FAILED, "No space")  # fmt: skip
        assert not list(place.iterdir())


def test_progress_of_a_stream(target):
    """Goes to stderr, and keeps to the rate limit."""
    result = cli.run(*arguments(target, "--progress", "json", "--quiet",
                                "--rate-limit", "60"))  # fmt: skip
    result.expect(cli.DONE)
    events = [json.loads(line) for line in result.err.splitlines()]
    assert len(events) >= 2
    assert stream.ram_pages(result.out)
