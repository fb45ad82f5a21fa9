# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever the disk and the memory of the host do: the process that is dumped
runs on as it was, and there is a whole image, or none and one clear line."""

import contextlib
import os
import resource
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from harness import cli, host, process, victim

MIB = 1 << 20
#: Pages that are written to all the time, a power of two.
JOURNAL = 64 * MIB // process.PAGE


def assert_nothing_left(place):
    assert not [path.name for path in place.iterdir()
                if path.name != "lost+found"]  # fmt: skip


@pytest.fixture(scope="module")
def module_targets():
    host.require_root()
    targets = process.Targets()
    yield targets
    targets.close()


@pytest.fixture(scope="module")
def target(module_targets, victim_exe):
    """One for all: none of the tests may do it any harm."""
    return module_targets.start(
        [victim_exe, f"journal=2,0,{JOURNAL}", "registers", "wait"], "^ready$"
    )


@pytest.fixture
def judge(victim_exe, tmp_path):
    process.require_gdb()
    return lambda image: victim.judge(
        victim_exe, image / "memory.core", tmp_path / "facts"
    )


@contextlib.contextmanager
def harmless(target):
    with process.unharmed(target):
        yield
    target.command("check")


def fails(target, out, *words, **options):
    """The dump fails, and leaves nothing."""
    with harmless(target):
        cli.run("dump", "--pid", target.pid, "--out", out, **options
                ).expect_error(cli.FAILED, *words)  # fmt: skip
        assert_nothing_left(out.parent)


def succeeds(target, out, judge, *options, **how):
    with harmless(target):
        cli.run("dump", "--pid", target.pid, "--out", out, "--quiet", *options,
                **how).expect(cli.DONE)  # fmt: skip
    judge(out)
    cli.run("verify", out).expect(cli.DONE)


@contextlib.contextmanager
def disk_file(mib):
    with tempfile.NamedTemporaryFile(prefix="snapuffd-disk-",
                                     dir="/var/tmp") as file:  # fmt: skip
        file.truncate(mib * MIB)
        yield file.name


# disks that take no more


def test_disk_is_full(target):
    with disk_file(40) as file, host.ext4(file) as place:
        fails(target, place / "image", "No space")


def test_disk_that_breaks(target):
    """It has less behind it than it says: writes end with an error of the
    device."""
    with host.tmpfs("size=24m") as behind:
        file = behind / "disk"
        with open(file, "wb") as disk:
            disk.truncate(512 * MIB)
        with host.ext4(file) as place:
            with harmless(target):
                cli.run(
                    "dump", "--pid", target.pid, "--out", place / "image"
                ).expect_error(cli.FAILED, "Input/output error", "No space")
            assert not (place / "image").exists()


def test_disk_that_becomes_read_only(target):
    """As ext4 does by itself when it finds an error."""
    with disk_file(256) as file, host.ext4(file, "errors=remount-ro") as place:
        device = subprocess.run(
            ["findmnt", "-n", "-o", "SOURCE", place],
            capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
        trigger = Path("/sys/fs/ext4") / Path(device).name / "trigger_fs_error"
        if not trigger.exists():
            pytest.skip("no error can be made in an ext4")
        with harmless(target):
            with cli.Running("dump", "--pid", target.pid, "--out",
                             place / "image", "--rate-limit", "20",
                             ) as running:  # fmt: skip
                host.wait_for((place / "image.partial/memory.core").exists)
                trigger.write_text("1")
                result = running.wait()
            # One line, and one of what cannot be removed there.
            assert result.code == cli.FAILED, result.err
            why, left = result.err.splitlines()
            assert "Read-only" in why or "Input/output" in why
            assert "cannot remove image.partial" in left
            assert not (place / "image").exists()


def test_quota(target):
    if not shutil.which("btrfs"):
        pytest.skip("btrfs is not installed")
    with host.btrfs(256) as disk:
        place = disk / "limited"
        for command in (["quota", "enable", disk],
                        ["subvolume", "create", place],
                        ["qgroup", "limit", "24M", place]):  # fmt: skip
            done = subprocess.run(["btrfs", *command], capture_output=True,
                                  text=True)  # fmt: skip
            if done.returncode:
                pytest.skip(f"no quota: {done.stderr.strip()}")
        fails(target, place / "image", "quota")


def test_file_size_limit(target, tmp_path):
    fails(target, tmp_path / "image", "File too large",
          prefix=["prlimit", f"--fsize={16 * MIB}"])  # fmt: skip


# disks that are slow, or know nothing of what is asked of them


def test_disk_that_only_writes_through(target, judge):
    with disk_file(512) as file, host.ext4(file, "sync,dirsync") as place:
        succeeds(target, place / "image", judge)


def test_disk_without_direct_io(target, judge):
    with host.tmpfs("size=256m") as place:
        succeeds(target, place / "image", judge)


# memory


@contextlib.contextmanager
def memory_cgroup(mib):
    """A function to be run in a child: it then has no more than `mib` MiB."""
    for root, limit, top in (
        (Path("/sys/fs/cgroup"), "memory.max", "cgroup.controllers"),
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "tasks"),
    ):
        if (root / top).exists():
            break
    else:
        pytest.skip("no memory cgroups here")
    place = root / f"snapuffd-test-memory-{os.getpid()}"
    try:
        place.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made: {error}")
    try:
        try:
            (place / limit).write_text(str(mib * MIB))
        except OSError as error:
            pytest.skip(f"no limit can be set: {error}")
        yield place / "cgroup.procs"
    finally:
        host.wait_for(lambda: not (place / "cgroup.procs").read_text())
        place.rmdir()


@pytest.mark.parametrize("mib", [64, 128])
def test_memory_limit(target, judge, out, mib):
    """Less than there is to be captured: the buffers keep to what is left."""
    with memory_cgroup(mib) as procs:
        succeeds(
            target, out, judge,
            prefix=["sh", "-c", f'echo $$ > {procs}; exec "$@"', "sh"],
        )  # fmt: skip


# calls that are interrupted, refused, fail now and then

#: What a signal may interrupt, or end early; reading a file it does not.
INTERRUPTED = (
    "write,pwrite64,recvmsg,sendmsg,epoll_wait,wait4,fsync,io_uring_enter,"
    "clock_nanosleep"
)


def strace(inject):
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    calls = inject.partition(":")[0]
    # The leak check traces, too.
    options = os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"
    return ["strace", "-f", "-qq", "-o", "/dev/null", "-E",
            f"ASAN_OPTIONS={options}", "-e", f"trace={calls}", "-e",
            f"inject={inject}"]  # fmt: skip


@pytest.mark.parametrize("options", [(), ("--no-io-uring", "--no-direct")],
                         ids=["default", "plain"])  # fmt: skip
@pytest.mark.parametrize("first", [1, 2, 4])
def test_interrupted_calls(target, judge, out, options, first):
    """Each thread's first call, or a later one, and every 7th from there."""
    succeeds(
        target, out, judge, *options,
        prefix=strace(f"{INTERRUPTED}:error=EINTR:when={first}+7"),
    )  # fmt: skip


def test_no_io_uring(target, judge, out):
    succeeds(target, out, judge,
             prefix=strace("io_uring_setup:error=EPERM"))  # fmt: skip


@pytest.mark.parametrize("error", ["EIO", "ENOSPC", "EDQUOT"])
@pytest.mark.parametrize(
    "call", ["pwrite64", "fsync", "renameat2", "mkdirat", "fallocate"]
)
def test_call_that_fails(target, tmp_path, call, error):
    """With threads that write: a ring's failures are the disks' above."""
    place = tmp_path / "place"
    place.mkdir()
    with harmless(target):
        result = cli.run(
            "dump", "--pid", target.pid, "--out", place / "image",
            "--no-io-uring", "--quiet",
            prefix=strace(f"{call}:error={error}"),
        )  # fmt: skip
    if result.code == cli.DONE:
        # It is not called, or for speed only.
        assert call in ("renameat2", "fallocate", "mkdirat")
        return
    result.expect_error(cli.FAILED)
    assert not list(place.iterdir())


def test_few_descriptors(target, judge, out):
    """The soft limit is raised; the hard one is what there is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    succeeds(target, out, judge, prefix=["prlimit", f"--nofile=16:{hard}"])
