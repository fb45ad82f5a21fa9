# SPDX-License-Identifier: GPL-2.0-or-later
"""Others that write to the memory: a process on the host that has the guest's
RAM mapped and writes to it in step with the guest (tests/guest/echo.c)."""

import contextlib
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from harness import cli, procstate
from harness.guest import GuestSpec, assert_same_instant
from harness.scribbler import SCRIBBLER, Scribbler, die_with_parent, rounds

SPEC = GuestSpec(ram="file", append="guest.echo=1",
                 judge={"mib": 32, "rate": 2000})  # fmt: skip


def in_image(image, scribbler):
    path = max(image.glob("*.pages"), key=lambda path: path.stat().st_size)
    with open(path, "rb") as ram:
        return rounds(ram, scribbler.cells)


def is_of_one_instant(words):
    return (words == sorted(words, reverse=True)
            and words[0] - words[-1] <= 1)  # fmt: skip


@pytest.fixture(scope="module")
def source(module_guests):
    guest = module_guests.start(SPEC)
    guest.wait("echo", lambda: "echo: ready" in guest.serial())
    return guest


@pytest.fixture
def scribble(source):
    """Starts processes that write to the guest's RAM."""
    with contextlib.ExitStack() as stack:

        def start(*args):
            scribbler = Scribbler(source.shm_dir / "ram", *args)
            return stack.enter_context(contextlib.closing(scribbler))

        yield start


def dump(source, out, *options):
    return cli.run("dump", "--pid", source.pid, "--out", out, "--json",
                   *options)  # fmt: skip


def test_writer_is_refused(source, scribble, out):
    scribbler = scribble()
    before = procstate.settled(source.pid)
    result = dump(source, out)
    result.expect_error(cli.REFUSED, f"process {scribbler.pid} ")
    assert "--writers auto" in result.err
    dump(source, out, "--writers", "refuse").expect(cli.REFUSED)
    report = cli.run("check", "--pid", source.pid, "--json")
    obstacles = report.expect(cli.REFUSED).json()["obstacles"]
    assert any(f"process {scribbler.pid} " in text for text in obstacles)
    scribbler.goes_on()
    procstate.assert_same(before)
    assert not out.exists()


@pytest.mark.parametrize("how", ["auto", "named"])
def test_writer_is_held_back(source, scribble, guests, out, how):
    scribbler = scribble()
    before = [procstate.settled(pid) for pid in (source.pid, scribbler.pid)]
    options = (["--writers", "auto"] if how == "auto"
               else ["--pid", scribbler.pid])  # fmt: skip
    for i in range(5):
        image = out.with_name(f"image{i}")
        figures = dump(source, image, *options).expect(cli.DONE).json()
        assert figures["unsafe"] == []
        words = in_image(image, scribbler)
        assert is_of_one_instant(words), words
        scribbler.goes_on()
    source.wait_checks(1)
    for state in before:
        procstate.assert_same(state)
    cli.run("verify", image).expect(cli.DONE)
    command = [cli.program(), "convert", str(image), "--to", "qemu",
               "--out", "-"]  # fmt: skip
    scribbler.close()
    restored = guests.restore(source, f"exec:{shlex.join(command)}")
    assert_same_instant(source, restored)


def test_unsafe_is_torn_and_says_so(source, scribble, out):
    scribbler = scribble()
    torn = 0
    for i in range(5):
        image = out.with_name(f"image{i}")
        result = dump(source, image, "--unsafe", "--rate-limit", 100)
        unsafe = result.expect(cli.DONE).json()["unsafe"]
        torn += not is_of_one_instant(in_image(image, scribbler))
    assert torn, "nothing convicts who is not held back"
    assert len(unsafe) == 1 and f"process {scribbler.pid} " in unsafe[0]
    assert "UNSAFE" in result.err
    for verb in ("inspect", "verify"):
        shown = cli.run(verb, image, "--json").expect(cli.DONE).json()
        assert shown["unsafe"] == unsafe
        assert "UNSAFE" in cli.run(verb, image).expect(cli.DONE).out.decode()
    printed = cli.run("restore", image, "--print")
    assert "may be torn" in printed.err


def test_pinned_memory_is_refused(source, scribble, out):
    scribbler = scribble("pin")
    result = dump(source, out, "--writers", "auto")
    result.expect_error(cli.REFUSED, "pinned")
    assert f"process {scribbler.pid} " in result.err
    scribbler.goes_on()


def test_who_does_not_map_it_is_refused(source, targets, out):
    other = targets.start(["sleep", "60"])
    result = dump(source, out, "--pid", other.pid)
    result.expect_error(cli.REFUSED, f"pid {other.pid}: has no memory")


MAPPER = """
import mmap, sys
file = open(sys.argv[1], "r+b")
kept = []
for line in sys.stdin:
    kept.append(mmap.mmap(file.fileno(), 0))
    print("mapped", flush=True)
"""


class Mapper:
    """Maps the file once more whenever it is told to, and does not write."""

    def __init__(self, file):
        self.process = subprocess.Popen(
            ["/usr/bin/python3", "-c", MAPPER, file], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            preexec_fn=die_with_parent)  # fmt: skip
        self.pid = self.process.pid

    def map(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "mapped\n"

    def close(self):
        self.process.kill()
        self.process.communicate()


@pytest.mark.parametrize("who", ["nobody", "covered"])
def test_who_maps_it_later_ends_the_dump(source, out, who):
    """A newcomer, or one that is covered and maps it once more."""
    with contextlib.closing(Mapper(source.shm_dir / "ram")) as mapper:
        if who == "covered":
            mapper.map()
        for _ in range(5):
            with cli.Running("dump", "--pid", source.pid, "--out", out,
                             "--writers", "auto") as dumping:  # fmt: skip
                held = dumping.hold_when_armed(source.pid)
                if held:
                    mapper.map()
                    dumping.resume()
                result = dumping.wait()
            if held:
                break
            shutil.rmtree(out)
    result.expect_error(cli.INCONSISTENT, f"pid {mapper.pid}: ")
    assert not out.exists()


def test_killed_dumper_lets_all_run(source, scribble, out):
    scribbler = scribble()
    before = [procstate.settled(pid) for pid in (source.pid, scribbler.pid)]
    with cli.Running("dump", "--pid", source.pid, "--out", out,
                     "--writers", "auto") as dumping:  # fmt: skip
        dumping.hold_when_armed(scribbler.pid)
        dumping.signal(signal.SIGKILL)
        dumping.resume()
        dumping.wait()
    scribbler.goes_on()
    source.wait_checks(1)
    for state in before:
        procstate.assert_same(state)
    image = out.with_name("next")
    dump(source, image, "--writers", "auto").expect(cli.DONE)


@contextlib.contextmanager
def storage_daemon(directory, name):
    """A vhost-user-blk backend; its socket and its disk's file."""
    disk, sock = directory / f"{name}.raw", directory / f"{name}.sock"
    with open(disk, "wb") as file:
        file.truncate(32 << 20)
    argv = [
        "qemu-storage-daemon",
        "--blockdev", f"driver=file,node-name=disk,filename={disk}",
        "--export", "type=vhost-user-blk,id=export,node-name=disk,"
        f"writable=on,addr.type=unix,addr.path={sock}",
    ]  # fmt: skip
    process = subprocess.Popen(argv, preexec_fn=die_with_parent)
    try:
        while not sock.exists():
            assert process.poll() is None
            time.sleep(0.01)
        yield process, sock, disk
    finally:
        process.kill()
        process.wait()


def backend_spec(sock):
    return GuestSpec(
        ram="memfd",
        modules=("virtio_pci", "virtio_blk"),
        append="guest.disk=vda",
        extra=("-chardev", f"socket,id=backend,path={sock}",
               "-device", "vhost-user-blk-pci,chardev=backend"),
    )  # fmt: skip


def wait_for_io(guest, disk):
    """The guest writes to its disk for ever."""
    before = disk.stat().st_mtime_ns
    guest.wait("write to the disk", lambda: disk.stat().st_mtime_ns > before)


@pytest.mark.skipif(not shutil.which("qemu-storage-daemon"),
                    reason="no qemu-storage-daemon")  # fmt: skip
def test_vhost_user_backend(guests, out, tmp_path):
    with (storage_daemon(tmp_path, "source") as (backend, sock, disk),
          storage_daemon(tmp_path, "copy") as (_, sock2, disk2)):  # fmt: skip
        source = guests.start(backend_spec(sock))
        wait_for_io(source, disk)
        refused = dump(source, out).expect(cli.REFUSED)
        assert f"process {backend.pid} (qemu-storage-da) " in refused.err
        before = procstate.settled(backend.pid)
        for i in range(2):
            image = out.with_name(f"image{i}")
            dump(source, image, "--writers", "auto").expect(cli.DONE)
            wait_for_io(source, disk)
        source.wait_checks(2)
        procstate.assert_same(before)
        cli.run("verify", image).expect(cli.DONE)
        disk2.write_bytes(disk.read_bytes())
        command = [cli.program(), "convert", str(image), "--to", "qemu",
                   "--out", "-"]  # fmt: skip
        restored = guests.restore(source, f"exec:{shlex.join(command)}",
                                  spec=backend_spec(sock2))  # fmt: skip
        assert_same_instant(source, restored)
        wait_for_io(restored, disk2)
        wait_for_io(restored, disk2)


# processes that are no QEMU


@pytest.fixture
def pair(targets):
    """A process, and another that writes to memory which both map."""
    file = Path(tempfile.mkstemp(dir="/dev/shm", prefix="snapuffd-test-")[1])
    try:
        target = targets.start(
            ["/usr/bin/python3", SCRIBBLER.with_name("echo.py"), file],
            ready="ready")  # fmt: skip
        with contextlib.closing(Scribbler(file)) as scribbler:
            yield target, scribbler
    finally:
        file.unlink()


def dump_all(target, out, *options):
    """A core has no memory of files that have a name but with --all."""
    return dump(target, out, "--all", *options)


def in_process_image(image, scribbler):
    shown = cli.run("inspect", image, "--json").expect(cli.DONE).json()
    region = next(region for region in shown["regions"]
                  if region.get("file") == str(scribbler.file))  # fmt: skip
    with open(image / region["pages_file"], "rb") as core:
        return rounds(core, [region["pages_offset"] + cell
                             for cell in scribbler.cells])  # fmt: skip


def test_process_is_dumped_with_a_warning(pair, out):
    target, scribbler = pair
    result = dump_all(target, out).expect(cli.DONE)
    assert f"process {scribbler.pid} " in result.err
    assert len(result.json()["unsafe"]) == 1
    refused = dump_all(target, out.with_name("no"), "--writers", "refuse")
    refused.expect_error(cli.REFUSED, f"process {scribbler.pid} ")


def test_writer_to_a_process_is_held_back(pair, out):
    target, scribbler = pair
    before = [procstate.settled(pid) for pid in (target.pid, scribbler.pid)]
    for i in range(5):
        image = out.with_name(f"image{i}")
        result = dump_all(target, image, "--writers", "auto").expect(cli.DONE)
        assert result.json()["unsafe"] == [] and result.err == ""
        words = in_process_image(image, scribbler)
        assert is_of_one_instant(words), words
        scribbler.goes_on()
    for state in before:
        procstate.assert_same(state)


def test_two_processes_of_one_instant(pair, out):
    target, scribbler = pair
    dump_all(target, out, "--pid", scribbler.pid).expect(cli.DONE)
    words = in_process_image(out / str(target.pid), scribbler)
    assert is_of_one_instant(words), words
    assert in_process_image(out / str(scribbler.pid), scribbler) == words
    scribbler.goes_on()
    core = dump_all(target, out.with_name("core"), "--pid", scribbler.pid,
                "--format", "core")  # fmt: skip
    core.expect_error(cli.USAGE, "more than one")
