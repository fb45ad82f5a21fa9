# SPDX-License-Identifier: GPL-2.0-or-later
"""Images that somebody else has made: who reads one has entered a sandbox
before, and what is in it drives neither the program nor the terminal."""

import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from harness import cli, host
from harness.guest import GuestSpec

#: A name that clears the screen, and with a C1 control sets its title.
EVIL = b"\x1b[2J\x1b]0;pwned\x07\xc2\x9b5m\n"


def sanitized():
    """A build that cannot be confined: its sanitizer needs more."""
    return b"__asan_init" in Path(cli.program()).read_bytes()


needs_sandbox = pytest.mark.skipif(
    "SNAPUFFD" in os.environ and sanitized(),
    reason="a build with the address sanitizer is not confined",
)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """An image of a process that has an evil name."""
    top = tmp_path_factory.mktemp("images")
    evil = os.fsencode(top) + b"/" + EVIL
    shutil.copy(shutil.which("sleep"), evil)
    with subprocess.Popen([evil, b"1000"]) as target:
        try:
            cli.run("dump", "--pid", target.pid, "--out", top / "image")\
                .expect(cli.DONE)
        finally:
            target.kill()
    return top / "image"


@pytest.fixture
def image(images, tmp_path):
    shutil.copytree(images, tmp_path / "image")
    return tmp_path / "image"


@pytest.fixture(scope="module")
def vm_image(module_guests, tmp_path_factory):
    guest = module_guests.start(GuestSpec())
    out = tmp_path_factory.mktemp("vm") / "image"
    cli.run("dump", "--pid", guest.pid, "--out", out).expect(cli.DONE)
    return out


# it is entered


def read_traces(prefix):
    """pid -> lines of strace -ff -o PREFIX."""
    return {
        path.suffix: path.read_text(errors="replace").splitlines()
        for path in prefix.parent.glob(prefix.name + ".*")
    }


def assert_confined_before_reading(traces, image):
    """Whoever opened a file of the image had entered the sandbox; somebody
    did."""
    readers = 0
    for pid, lines in traces.items():
        done = {"seccomp": False, "landlock": False, "privs": False}
        for line in lines:
            if "PR_SET_NO_NEW_PRIVS, 1" in line and line.endswith("= 0"):
                done["privs"] = True
            if re.match(r"(landlock_restrict_self|syscall_0x1be)\(", line):
                done["landlock"] = line.endswith("= 0")
            if "SECCOMP_SET_MODE_FILTER" in line and line.endswith("= 0"):
                done["seccomp"] = True
            if re.search(r'open.*"(inventory|machine|pagemap)\.img"', line):
                assert done["seccomp"] and done["privs"], (pid, line)
                assert done["landlock"] or not host_has_landlock(), line
                readers += 1
    assert readers, f"nobody has opened a file of {image}"


def host_has_landlock():
    import ctypes

    return ctypes.CDLL(None).syscall(444, 0, 0, 1) > 0


def run_traced(tmp_path, *args):
    prefix = tmp_path / "trace"
    done = cli.run(*args, prefix=["strace", "-ff", "-o", prefix])
    return done, read_traces(prefix)


@needs_sandbox
@pytest.mark.parametrize(
    "verb, options",
    [
        ("inspect", []),
        ("inspect", ["--json"]),
        ("verify", []),
        ("convert", ["--to", "core", "--out"]),
        ("convert", ["--to", "raw", "--out"]),
    ],
)
def test_entered_before_reading(image, tmp_path, verb, options):
    if options[-1:] == ["--out"]:
        options = [*options, tmp_path / "out"]
    done, traces = run_traced(tmp_path, verb, image, *options)
    done.expect(cli.DONE)
    assert_confined_before_reading(traces, image)


@needs_sandbox
def test_restore_reads_by_a_confined_child(vm_image, tmp_path):
    done, traces = run_traced(
        tmp_path, "restore", vm_image, "--print", "--dir", tmp_path / "clone"
    )
    done.expect(cli.DONE)
    assert_confined_before_reading(traces, vm_image)
    # What asks QEMU for its version, or runs it, was not confined.  QEMU itself
    # tries what there is of seccomp.
    runs = 0
    for lines in traces.values():
        before = []
        for line in lines:
            if re.match(r'execve\(".*qemu-system.* = 0$', line):
                runs += 1
                assert not any("SECCOMP_SET_MODE" in x or "NO_NEW" in x
                               for x in before)  # fmt: skip
                break
            before.append(line)
    assert runs


@needs_sandbox
@pytest.mark.parametrize("form", ["qemu", "mapped-ram", "devices"])
def test_vm_is_converted_by_a_confined_child(vm_image, tmp_path, form):
    done, traces = run_traced(
        tmp_path, "convert", vm_image, "--to", form, "--out", tmp_path / "out"
    )
    done.expect(cli.DONE)
    assert_confined_before_reading(traces, vm_image)


def status(pid):
    text = Path(f"/proc/{pid}/status").read_text()
    return dict(re.findall(r"^(\w+):\t(.*)$", text, re.M))


def children(pid):
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


@contextlib.contextmanager
def stuck(*args):
    """Runs a verb whose stdout nobody reads, so that it stands at its first
    output."""
    read_end, write_end = os.pipe()
    fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 4096)
    os.write(write_end, b"x" * 4096)
    with cli.Running(*args, stdout=write_end) as running:
        os.close(write_end)
        try:
            yield running
        finally:
            os.close(read_end)


@needs_sandbox
@pytest.mark.parametrize(
    "args, in_child",
    [
        (["inspect"], False),
        (["verify"], False),
        (["convert", "--to", "core", "--out", "-"], True),
    ],
)
def test_in_force(image, args, in_child):
    with stuck(args[0], image, *args[1:]) as running:

        def reader():
            pids = children(running.pid) if in_child else [running.pid]
            return [pid for pid in pids if status(pid)["Seccomp"] == "2"]

        host.wait_for(reader, timeout=30)
        assert status(reader()[0])["NoNewPrivs"] == "1"
        if in_child:
            # It removes the output if need be.
            assert status(running.pid)["Seccomp"] == "0"


# a child that dies


@needs_sandbox
def test_reader_that_dies(image, tmp_path):
    fifo = tmp_path / "stdout"
    with stuck("convert", image, "--to", "core", "--out", "-") as running:
        host.wait_for(lambda: children(running.pid), timeout=30)
        os.kill(children(running.pid)[0], signal.SIGKILL)
        result = running.wait(timeout=30)
    result.expect_error(cli.FAILED, "signal 9")
    assert not fifo.exists()


@needs_sandbox
def test_killed_parent_leaves_no_reader(image):
    with stuck("convert", image, "--to", "core", "--out", "-") as running:
        host.wait_for(lambda: children(running.pid), timeout=30)
        reader = children(running.pid)[0]
        running.signal(signal.SIGKILL)
        running.wait(timeout=30)
        host.wait_for(lambda: not Path(f"/proc/{reader}").exists()
                      or status(reader)["State"].startswith("Z"),
                      timeout=30)  # fmt: skip


def test_interrupted_by_pid(image):
    """SIGTERM to the one that was started, and not to its child."""
    with stuck("convert", image, "--to", "core", "--out", "-") as running:
        host.wait_for(lambda: children(running.pid), timeout=30)
        time.sleep(0.2)
        running.signal(signal.SIGTERM)
        result = running.wait(timeout=30)
    result.expect_error(cli.FAILED, "interrupted")


# files that are none


@pytest.mark.parametrize("kind", ["fifo", "link", "device", "directory"])
@pytest.mark.parametrize(
    "name", ["inventory.img", "stats.img", "threads.img", "memory.core"]
)
def test_only_regular_files(image, tmp_path, kind, name):
    path = image / name
    path.rename(tmp_path / "moved")
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(tmp_path / "moved")
    elif kind == "device":
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero
    else:
        path.mkdir()
    cli.run("verify", image, timeout=30).expect_error(
        cli.FAILED, f"{name} is no regular file"
    )
    out = tmp_path / "out"
    cli.run("convert", image, "--to", "core", "--out", out,
            timeout=30).expect_error(cli.FAILED, "no regular file")  # fmt: skip
    assert not out.exists()


def test_endless_part(image):
    """Sparse, and longer than anyone can read."""
    os.truncate(image / "stats.img", 1 << 42)
    cli.run("inspect", image, timeout=30).expect_error(
        cli.FAILED, "checksum or length"
    )


# texts


def assert_printable(data):
    text = data.decode()  # it is UTF-8
    bad = [c for c in text if c != "\n"
           and (ord(c) < 32 or 0x7F <= ord(c) < 0xA0)]  # fmt: skip
    assert not bad, f"{bad} in {text!r}"


def test_names_do_not_drive_the_terminal(image, tmp_path):
    shown = cli.run("inspect", image).expect(cli.DONE).out
    assert b"[2J" in shown, "the name is shown"
    assert_printable(shown)
    found = cli.run("inspect", image, "--json").expect(cli.DONE)
    assert_printable(found.out)
    assert EVIL.decode() in found.json()["process"]["exe"]
    evil = tmp_path / EVIL.decode()
    assert_printable(cli.run("verify", evil).err.encode())


def test_check_of_an_evil_process(tmp_path):
    evil = os.fsencode(tmp_path) + b"/" + EVIL
    shutil.copy(shutil.which("sleep"), evil)
    with subprocess.Popen([evil, b"1000"]) as target:
        try:
            result = cli.run("check", "--pid", target.pid)
        finally:
            target.kill()
    assert_printable(result.out)
    assert_printable(result.err.encode())
