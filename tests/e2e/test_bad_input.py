# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever is wrong, the user gets one clear line and the right exit code, the
target runs on as it was, and nothing is left in the file system."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest
from harness import cli, host, procstate
from harness.guest import GuestSpec
from harness.procstate import unharmed

NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]

# A target that is in a system call nearly always, like most are.
TARGET_32_BIT = """
void _start(void)
{
	for (;;)
		__asm__ volatile("int $0x80" : : "a"(29) : "memory");
}
"""


def assert_nothing_left(out):
    assert not os.path.lexists(out)
    assert not os.path.lexists(f"{out}.partial")


@pytest.fixture(scope="module")
def target(module_guests):
    """A guest for all tests that must leave it as it is."""
    return module_guests.start(GuestSpec())


@contextlib.contextmanager
def process(*argv):
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL) as running:
        try:
            yield running
        finally:
            running.kill()


def refuse(pid, out, *words, options=()):
    """`dump` must refuse the target."""
    cli.run("dump", "--pid", pid, "--out", out, *options).expect_error(
        cli.REFUSED, *words
    )
    assert_nothing_left(out)


# targets that are none


def test_no_such_pid(out):
    with process("sleep", "1000") as gone:
        pass
    refuse(gone.pid, out, "no such process", "does not exist", "no process")
    cli.run("check", "--pid", gone.pid).expect(cli.REFUSED)


def test_kernel_thread(out):
    assert not os.path.lexists("/proc/2/exe") or not Path(
        "/proc/2/cmdline"
    ).read_bytes()
    refuse(2, out, "kernel thread")


def test_own_pid(out):
    # The shell becomes the program: $$ is the pid of both.
    command = f'exec "$0" dump --pid $$ --out "{out}"'
    done = subprocess.run(
        ["sh", "-c", command, cli.program()], capture_output=True, timeout=60
    )
    result = cli.Result(["dump of itself"], done.returncode, done.stdout,
                        done.stderr.decode())  # fmt: skip
    result.expect_error(cli.REFUSED, "itself", "own")
    assert_nothing_left(out)


def test_zombie(out):
    zombie = subprocess.Popen(["true"])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    refuse(zombie.pid, out, "zombie", "dead", "exited")
    zombie.wait()


def test_not_qemu(out):
    with process("sleep", "1000") as target:
        before = procstate.settled(target.pid)
        refuse(target.pid, out, "QEMU", options=["--as", "qemu"])
        procstate.assert_same(before)


def test_stopped_process_stays_stopped(out):
    with process("sleep", "1000") as target:
        target.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, target.pid, os.WSTOPPED | os.WNOWAIT)
        refuse(target.pid, out)
        status = procstate.capture(target.pid).threads[target.pid]
        assert status["State"].startswith("T")
        assert status["TracerPid"] == "0"


def test_32_bit_target(out, tmp_path):
    source = tmp_path / "target.c"
    source.write_text(TARGET_32_BIT)
    program = tmp_path / "target"
    done = subprocess.run(
        ["gcc", "-m32", "-nostdlib", "-static", "-fno-pic",
         "-fno-stack-protector", "-o", program, source],
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"no 32-bit program can be made: {done.stderr.strip()}")
    try:
        running = subprocess.Popen([program])
    except OSError as error:
        pytest.skip(f"this kernel runs no 32-bit programs: {error}")
    try:
        refuse(running.pid, out, "32-bit", "32 bit", "i386", "QEMU")
        assert running.poll() is None
        assert not procstate.traces_left(procstate.capture(running.pid))
    finally:
        running.kill()
        running.wait()


def test_no_permission(target):
    place = Path(tempfile.mkdtemp(prefix="snapuffd-nobody-"))
    try:
        place.chmod(0o777)
        exe = place / "snapuffd"
        shutil.copyfile(cli.program(), exe)
        exe.chmod(0o755)
        with unharmed(target):
            cli.run(
                "dump", "--pid", target.pid, "--out", place / "image",
                prefix=NOBODY, exe=exe,
            ).expect_error(
                cli.REFUSED, "permission", "permitted", "capabilit", "CAP_",
                "privilege", "root",
            )  # fmt: skip
        assert_nothing_left(place / "image")
    finally:
        shutil.rmtree(place)


def test_background_snapshot_under_way(guests, out):
    """QEMU's own, slow enough to be met."""
    guest = guests.start(GuestSpec(ram="anon4k"))
    with guest.qmp() as qmp:
        qmp.command(
            "migrate-set-capabilities",
            capabilities=[{"capability": "background-snapshot", "state": True}],
        )
        qmp.command("migrate-set-parameters", **{"max-bandwidth": 1 << 20})
        qmp.command("migrate", uri="exec:cat >/dev/null")
        guest.wait(
            "registered RAM",
            lambda: procstate.traces_left(procstate.capture(guest.pid)),
        )
    refuse(guest.pid, out, "migrat")
    # It may be over by now; it is not hurt.
    with guest.qmp() as qmp:
        state = qmp.command("query-migrate")["status"]
    assert state in ("active", "completed"), state


def test_dumped_already(guests, tmp_path, out):
    """By way of another monitor, which would let it be stopped twice."""
    second = tmp_path / "second.qmp"
    guest = guests.start(
        GuestSpec(extra=("-qmp", f"unix:{second},server=on,wait=off"))
    )
    guest.wait_checks(1)
    with held_dump(guest, tmp_path / "first"):
        cli.run(
            "dump", "--pid", guest.pid, "--out", out, "--qmp", second
        ).expect_error(cli.REFUSED, "is dumping it already")
        assert_nothing_left(out)
    guest.wait_checks(1)


def test_already_traced(target, out):
    with unharmed(target):
        with contextlib.ExitStack() as stack:
            tracer = shutil.which("strace") or shutil.which("gdb")
            if not tracer:
                pytest.skip("neither strace nor gdb is installed")
            options = ["-p", str(target.pid)]
            if tracer.endswith("strace"):
                options += ["-f", "-e", "trace=none", "-qq"]
            stack.enter_context(process(tracer, *options))
            target.wait(
                "tracer",
                lambda: any(
                    "traced" in line
                    for line in procstate.traces_left(
                        procstate.capture(target.pid)
                    )
                ),
            )
            refuse(target.pid, out, "traced", "debugg", "ptrace")


# QMP


def test_qmp_busy(target, out):
    with unharmed(target):
        held = socket.socket(socket.AF_UNIX)
        held.connect(str(target.qmp_path))
        held.recv(4096)
        with held, target.qmp():
            refuse(target.pid, out, "QMP")
            cli.run(
                "dump", "--pid", target.pid, "--out", out,
                "--qmp", target.qmp_path,
            ).expect_error(cli.REFUSED, "QMP")  # fmt: skip
            assert_nothing_left(out)


def test_qmp_absent(guests, out):
    guest = guests.start(GuestSpec(qmp=False, monitor=False))
    before = procstate.settled(guest.pid)
    refuse(guest.pid, out, "QMP")
    procstate.assert_same(before)
    guest.wait_checks(1)


def test_qmp_path_does_not_exist(target, out, tmp_path):
    with unharmed(target):
        cli.run(
            "dump", "--pid", target.pid, "--out", out,
            "--qmp", tmp_path / "none.sock",
        ).expect_error(cli.REFUSED, "none.sock")  # fmt: skip
        assert_nothing_left(out)


@contextlib.contextmanager
def server(path, greeting):
    """Greets every client, then reads for ever and says nothing more."""

    def serve():
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                clients.append(client)
                client.sendall(greeting)

    clients = []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(8)
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for client in clients:
            client.close()


@pytest.mark.parametrize(
    "greeting",
    [b"", b"220 mail.example ESMTP\r\n", b'{"hello": [1, 2', b"\0" * 65536,
     b"[" * 20000 + b"\n", b'{"QMP": 1}\n'],
    ids=["silent", "text", "half", "zeros", "deep", "alike"],
)  # fmt: skip
def test_not_qmp(target, out, tmp_path, greeting):
    path = tmp_path / "s"
    with unharmed(target), server(path, greeting):
        cli.run(
            "dump", "--pid", target.pid, "--out", out, "--qmp", path,
            timeout=60,
        ).expect_error(cli.REFUSED, "QMP")  # fmt: skip
        assert_nothing_left(out)


def test_qmp_of_another_qemu(target, guests, out):
    """It would stop one guest and copy the memory of the other."""
    other = guests.start(GuestSpec())
    with unharmed(target), unharmed(other):
        cli.run(
            "dump", "--pid", target.pid, "--out", out,
            "--qmp", other.qmp_path,
        ).expect_error(cli.REFUSED, str(target.pid), "QMP")  # fmt: skip
        assert_nothing_left(out)


# where it goes


def test_out_exists(target, out):
    out.mkdir()
    (out / "precious").write_text("data")
    with unharmed(target):
        cli.run("dump", "--pid", target.pid, "--out", out).expect_error(
            cli.FAILED, "exists"
        )
    assert [p.name for p in out.iterdir()] == ["precious"]
    assert (out / "precious").read_text() == "data"
    assert not os.path.lexists(f"{out}.partial")


def test_out_is_a_file(target, out):
    out.write_text("data")
    cli.run("dump", "--pid", target.pid, "--out", out).expect_error(
        cli.FAILED, "exists"
    )
    assert out.read_text() == "data"
    assert not os.path.lexists(f"{out}.partial")
    out.unlink()


def test_out_has_no_parent(target, out):
    inner = out / "image"
    with unharmed(target):
        cli.run("dump", "--pid", target.pid, "--out", inner).expect_error(
            cli.FAILED, "No such file"
        )
    assert_nothing_left(out)


@pytest.mark.parametrize("size", ["64k", "4m", "24m"])
def test_out_is_full(target, size):
    with host.tmpfs(f"size={size}") as place, unharmed(target):
        out = place / "image"
        cli.run("dump", "--pid", target.pid, "--out", out).expect_error(
            cli.FAILED, "No space", "full"
        )
        assert_nothing_left(out)
        assert not list(place.iterdir())


def test_out_is_read_only(target):
    with host.tmpfs("ro") as place, unharmed(target):
        out = place / "image"
        cli.run("dump", "--pid", target.pid, "--out", out).expect_error(
            cli.FAILED, "Read-only"
        )
        assert_nothing_left(out)


# in the middle of it


@contextlib.contextmanager
def held_dump(guest, out):
    """A dump that is stopped with the target's memory armed."""
    for _ in range(10):
        with cli.Running("dump", "--pid", guest.pid, "--out", out) as running:
            if running.hold_when_armed(guest.pid):
                try:
                    yield running
                finally:
                    running.resume()
                return
            running.resume()
            running.wait().expect(cli.DONE)
        shutil.rmtree(out)
    pytest.fail("no dump could be caught in the middle")


def test_second_dump_at_once(target, out):
    second = out.with_name("second")
    with unharmed(target), held_dump(target, out) as running:
        cli.run(
            "dump", "--pid", target.pid, "--out", second, timeout=60
        ).expect_error(cli.REFUSED)
        assert_nothing_left(second)
        running.resume()
        running.wait().expect(cli.DONE)
    cli.run("verify", out).expect(cli.DONE)


def test_second_dump_to_the_same_place(target, out):
    with unharmed(target), held_dump(target, out) as running:
        result = cli.run("dump", "--pid", target.pid, "--out", out, timeout=60)
        assert result.code in (cli.FAILED, cli.REFUSED)
        result.expect_error(result.code)
        running.resume()
        running.wait().expect(cli.DONE)
    cli.run("verify", out).expect(cli.DONE)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_interrupted(target, out, name):
    with unharmed(target), held_dump(target, out) as running:
        running.signal(getattr(signal, name))
        running.resume()
        running.wait().expect_error(
            cli.FAILED, "interrupted", "signal", "cancel", name
        )
        assert_nothing_left(out)


def test_killed(target, out):
    with unharmed(target), held_dump(target, out) as running:
        running.signal(signal.SIGKILL)
        running.resume()
        running.process.communicate()
        target.wait_checks(1)
        assert_nothing_left(out)
    # And what it left does not get in the way of the next one.
    cli.run("dump", "--pid", target.pid, "--out",
            out.with_name("next")).expect(cli.DONE)  # fmt: skip
    target.wait_checks(1)


def test_target_killed(guests, out):
    guest = guests.start(GuestSpec())
    guest.wait_checks(1)
    with held_dump(guest, out) as running:
        guest.kill()
        running.resume()
        running.wait().expect_error(
            cli.FAILED, "exited", "gone", "died", "dead", "ended", "killed",
            "lost", "closed",
        )  # fmt: skip
        assert_nothing_left(out)


# images


@pytest.fixture(scope="module")
def image(target, tmp_path_factory):
    """A good one.  Tests that damage it repair it."""
    path = tmp_path_factory.mktemp("images") / "image"
    cli.run("dump", "--pid", target.pid, "--out", path).expect(cli.DONE)
    cli.run("verify", path).expect(cli.DONE)
    yield path
    cli.run("verify", path).expect(cli.DONE)
    shutil.rmtree(path)


@contextlib.contextmanager
def changed(path, offset, data):
    """The file with other bytes at `offset`, for the time of the block."""
    with open(path, "r+b", buffering=0) as file:
        file.seek(offset)
        old = file.read(len(data))
        file.seek(offset)
        file.write(data)
        try:
            yield
        finally:
            file.seek(offset)
            file.write(old)


@contextlib.contextmanager
def moved_away(path):
    aside = path.parent.with_name("aside")
    path.rename(aside)
    try:
        yield aside
    finally:
        aside.rename(path)


def fails_to_convert(image, tmp_path):
    for form in ("qemu", "mapped-ram", "raw"):
        target = tmp_path / "converted"
        cli.run(
            "convert", image, "--to", form, "--out", target
        ).expect_error(cli.FAILED)  # fmt: skip
        assert_nothing_left(target)


def errs_at_most(result):
    """What does not read the bad part may succeed, and does nothing worse."""
    assert result.code in (cli.DONE, cli.FAILED), result
    if result.code:
        result.expect_error(cli.FAILED)


def flip_offsets(path, rng):
    """Offsets of bytes that mean something: in a pages file those of data."""
    if path.suffix != ".pages":
        size = path.stat().st_size
        return [0, size - 1, *(rng.randrange(size) for _ in range(6))]
    found = []
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        for _ in range(200):
            try:
                at = os.lseek(
                    file.fileno(), rng.randrange(size), os.SEEK_DATA
                )
            except OSError:
                continue  # the rest is a hole
            file.seek(at & -4096)
            page = file.read(4096)
            if any(page):
                found.append((at & -4096) + rng.randrange(len(page)))
            if len(found) == 4:
                break
    return found


def test_good_image(image, tmp_path):
    for verb in ("inspect", "verify"):
        cli.run(verb, image).expect(cli.DONE)
        cli.run(verb, image, "--json").expect(cli.DONE).json()


@pytest.mark.parametrize("kind", ["missing", "empty", "file", "partial"])
def test_no_image(tmp_path, kind):
    path = tmp_path / ("image.partial" if kind == "partial" else "image")
    if kind in ("empty", "partial"):
        path.mkdir()
    elif kind == "file":
        path.write_bytes(b"\0" * 8192)
    for verb in ("inspect", "verify"):
        cli.run(verb, path).expect_error(cli.FAILED)
    fails_to_convert(path, tmp_path)


def test_missing_file(image):
    for path in sorted(image.iterdir()):
        with moved_away(path):
            cli.run("verify", image).expect_error(cli.FAILED, path.name)
            errs_at_most(cli.run("inspect", image))


def test_truncated(image, tmp_path):
    for path in sorted(image.iterdir()):
        size = path.stat().st_size
        if not size:
            continue
        for new_size in {0, 3, 7, size // 2, size - 1}:
            if new_size >= size:
                continue
            with moved_away(path) as aside:
                with open(path, "wb") as file, open(aside, "rb") as whole:
                    if path.suffix == ".pages":
                        os.sendfile(file.fileno(), whole.fileno(), 0,
                                    min(new_size, 1 << 20))  # fmt: skip
                        file.truncate(new_size)
                    else:
                        file.write(whole.read(new_size))
                cli.run("verify", image).expect_error(cli.FAILED)
                errs_at_most(cli.run("inspect", image))
                if path.name == "inventory.img":
                    cli.run("inspect", image).expect_error(cli.FAILED)
                    fails_to_convert(image, tmp_path)
                path.unlink()


def test_flipped_bits(image, tmp_path):
    rng = random.Random(20240229)
    for path in sorted(image.iterdir()):
        if not path.stat().st_size:
            continue
        for offset in flip_offsets(path, rng):
            with open(path, "rb") as file:
                file.seek(offset)
                byte = file.read(1)[0] ^ (1 << rng.randrange(8))
            with changed(path, offset, bytes([byte])):
                where = f"{path.name} at {offset}"
                result = cli.run("verify", image)
                assert result.code == cli.FAILED, f"{where}: {result}"
                result.expect_error(cli.FAILED)
                errs_at_most(cli.run("inspect", image))


def test_flipped_bit_does_not_become_a_guest(image, tmp_path):
    rng = random.Random(7)
    pages = max(image.glob("*.pages"), key=lambda p: p.stat().st_blocks)
    offset = flip_offsets(pages, rng)[0]
    with open(pages, "rb") as file:
        file.seek(offset)
        byte = file.read(1)[0] ^ 0x10
    with changed(pages, offset, bytes([byte])):
        fails_to_convert(image, tmp_path)


def test_wrong_magic(image, tmp_path):
    for path in sorted(image.glob("*.img")):
        with changed(path, 0, b"\x7fELF"):
            cli.run("verify", image).expect_error(cli.FAILED, path.name)
            errs_at_most(cli.run("inspect", image))
    with changed(image / "inventory.img", 0, b"\x7fELF"):
        cli.run("inspect", image).expect_error(cli.FAILED, "inventory.img")
        fails_to_convert(image, tmp_path)


def test_future_version(image, tmp_path):
    # Magic, length, then field 1 of the message, a varint: the version.
    inventory = image / "inventory.img"
    assert inventory.read_bytes()[8:10] == b"\x08\x01"
    with changed(inventory, 9, b"\x63"):
        for verb in ("inspect", "verify"):
            cli.run(verb, image).expect_error(cli.FAILED, "version")
        fails_to_convert(image, tmp_path)


def test_huge_length(image, tmp_path):
    """A length that would take all memory is refused before it is believed."""
    for path in sorted(image.glob("*.img")):
        with changed(path, 4, b"\xff\xff\xff\x7f"):
            cli.run("verify", image, timeout=30).expect_error(cli.FAILED)
            errs_at_most(cli.run("inspect", image, timeout=30))


def test_convert_does_not_overwrite(image, tmp_path):
    target = tmp_path / "precious"
    target.write_text("data")
    cli.run("convert", image, "--to", "qemu", "--out", target).expect_error(
        cli.FAILED, "exists"
    )
    assert target.read_text() == "data"


def test_convert_to_a_full_disk(image):
    with host.tmpfs("size=1m") as place:
        target = place / "stream"
        cli.run(
            "convert", image, "--to", "qemu", "--out", target
        ).expect_error(cli.FAILED, "No space", "full")  # fmt: skip
        assert_nothing_left(target)


def test_convert_to_a_closed_pipe(image):
    done = subprocess.run(
        ["bash", "-c", '"$0" convert "$1" --to qemu --out - | head -c 1; '
         'exit "${PIPESTATUS[0]}"', cli.program(), image],
        capture_output=True, timeout=60,
    )  # fmt: skip
    assert done.returncode in (cli.FAILED, 128 + signal.SIGPIPE), done
    assert len(done.stderr.splitlines()) <= 1
