# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks of the same instant as the memory, and commands in the pause."""

import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness import cli, host, procstate
from harness.clone import Clone
from harness.guest import Guest, GuestSpec

PAGE = 4096
SPEC = GuestSpec(disk="qcow2", journal=True, judge={"mib": 16, "rate": 2000})

# The page that tests/guest/journal.c has its step in.
MARK_FIRST = 0x6C616E72756F6A21
MARK_LAST = 0x217061732E6B6469

_VERDICT = re.compile(r"^journal: seq=(\d+) check=(clean|BAD .*)$")


def run(*argv):
    done = subprocess.run(
        list(map(str, argv)), capture_output=True, text=True,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def ext4(tmp_path_factory):
    """A qcow2 with an empty ext4."""
    for tool in ("mkfs.ext4", "e2fsck", "debugfs", "qemu-img"):
        if not shutil.which(tool, path=os.environ["PATH"] + ":/usr/sbin"):
            pytest.skip(f"{tool} is not installed")
    os.environ["PATH"] += ":/usr/sbin"
    place = tmp_path_factory.mktemp("ext4")
    raw, image = place / "raw", place / "qcow2"
    raw.touch()
    os.truncate(raw, 32 << 20)
    run("mkfs.ext4", "-q", "-F", raw)
    run("qemu-img", "convert", "-O", "qcow2", raw, image)
    raw.unlink()
    return image


# the journal in the guest


def journal(guest):
    """(step, verdict) of each whole line."""
    lines = (line.rstrip("\r") for line in guest.serial().split("\n")[:-1])
    return [
        (int(match[1]), match[2])
        for match in map(_VERDICT.match, lines)
        if match
    ]


def wait_journal(guest, n=3, clean=True):
    """Waits for `n` further lines and returns the last step."""
    start = len(journal(guest))
    found = guest.wait(
        f"{n} further lines of the journal",
        lambda: (v := journal(guest)[start:])[n - 1 : n] and v,
        60,
    )
    assert not clean or all(verdict == "clean" for _, verdict in found), found
    return found[-1][0]


def wait_conviction(guest):
    guest.wait(
        "conviction",
        lambda: any(v.startswith("BAD") for _, v in journal(guest)),
        60,
    )


def step_in_memory(image):
    """The journal's step in an image's RAM."""
    found = set()
    with open(image / "pc.ram.pages", "rb") as ram:
        while page := ram.read(PAGE):
            words = [int.from_bytes(page[at : at + 8], "little")
                     for at in (0, 8, PAGE - 8)]  # fmt: skip
            if words[0] == MARK_FIRST and words[2] == MARK_LAST:
                found.add(words[1])
    assert len(found) == 1, found
    return found.pop()


def step_on_disk(raw, place):
    """The newest step in the journal's file, from a raw ext4."""
    run("debugfs", "-R", f"dump /slots {place / 'slots'}", raw)
    data = (place / "slots").read_bytes()
    assert len(data) == 64 * PAGE
    return max(int.from_bytes(data[at : at + 8], "little")
               for at in range(0, len(data), PAGE))  # fmt: skip


# what QEMU has


def files(guest):
    """Device -> file of each disk."""
    with guest.qmp() as qmp:
        return {
            info["device"]: info["inserted"]["file"]
            for info in qmp.command("query-block")
            if "inserted" in info
        }


@contextlib.contextmanager
def unharmed(guest):
    """After the block the guest runs as before, on the same disks."""
    before, disks = procstate.settled(guest.pid), files(guest)
    listing = sorted(guest.dir.iterdir())
    yield
    assert guest.status() == "running"
    assert files(guest) == disks
    assert sorted(guest.dir.iterdir()) == listing
    with guest.qmp() as qmp:
        assert qmp.command("query-jobs") == []
    guest.wait_checks(1)
    wait_journal(guest)
    procstate.assert_same(before)


def fold_back(guest, command):
    """Runs the block-commit of `command`, JSON, to its end."""
    command = json.loads(command)
    assert command["execute"] == "block-commit"
    job = command["arguments"]["job-id"]
    with guest.qmp() as qmp:
        qmp.command("block-commit", **command["arguments"])
        deadline = time.monotonic() + 60
        while not qmp.command("query-block-jobs")[0]["ready"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        qmp.command("block-job-complete", device=job)
        while qmp.command("query-block-jobs"):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def disks_of(image):
    found = cli.run("inspect", image, "--json").expect(cli.DONE).json()
    return found["disks"]


def dump(guest, out, *options):
    return cli.run("dump", "--pid", guest.pid, "--out", out, "--json",
                   *options)  # fmt: skip


# one instant


def test_memory_and_disk_are_of_one_instant(guests, out, ext4, tmp_path):
    source = guests.start(SPEC, disk=ext4)
    wait_journal(source)
    source.stop()
    earlier = tmp_path / "earlier.qcow2"
    shutil.copyfile(source.disk, earlier)
    source.cont()
    wait_journal(source, 5)

    figures = dump(source, out, "--disks", "overlay").expect(cli.DONE).json()
    print(f"pause with an overlay: {figures['pause_ms']} ms")
    base = source.disk
    before = digest(base)
    cli.run("verify", out).expect(cli.DONE)

    (disk,) = disks_of(out)
    overlay = Path(disk["overlay"])
    assert disk == {
        "file": str(base), "format": "qcow2", "device": "virtio0",
        "read_only": False, "size": base.stat().st_size,
        "overlay": str(overlay),
    }  # fmt: skip
    assert overlay.parent == base.parent
    assert re.fullmatch(r"disk\.qcow2\.snapuffd-\d+-\d+\.qcow2", overlay.name)
    text = cli.run("inspect", out).expect(cli.DONE).out.decode()
    assert str(base) in text and str(overlay) in text

    # The source goes on, in the overlay.
    assert files(source) == {"virtio0": str(overlay)}
    wait_journal(source, 5)
    source.wait_checks(2)
    assert source.stderr() == ""

    # The base is a sound disk, and of the memory's step.
    run("qemu-img", "check", base)
    raw = tmp_path / "raw"
    run("qemu-img", "convert", "-O", "raw", base, raw)
    replayed = subprocess.run(["e2fsck", "-p", raw],
                              capture_output=True)  # fmt: skip
    assert replayed.returncode in (0, 1), replayed.stdout
    run("e2fsck", "-f", "-n", raw)
    in_memory = step_in_memory(out)
    on_disk = step_on_disk(raw, tmp_path)
    print(f"step {in_memory} in memory, {on_disk} on the disk")
    assert on_disk in (in_memory, in_memory - 1)

    # Later than the instant: what the source has by now.
    later = tmp_path / "later.qcow2"
    source.stop()
    shutil.copyfile(overlay, later)
    source.cont()

    fresh = tmp_path / "fresh.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base,
        fresh)  # fmt: skip
    stream = tmp_path / "stream"
    cli.run("convert", out, "--to", "qemu", "--out", stream).expect(cli.DONE)
    incoming = f"exec:cat {shlex.quote(str(stream))}"

    def restore(disk):
        return guests.adopt(Guest(SPEC, incoming=incoming, disk=disk), False)

    restored = restore(fresh)
    assert wait_journal(restored, 10) > in_memory
    restored.wait_checks(2)
    assert restored.stderr() == ""
    restored.close()

    # And the journal would have told.
    for wrong in (earlier, later):
        restored = restore(wrong)
        wait_conviction(restored)
        restored.close()

    assert digest(base) == before
    wait_journal(source)


def test_restore_of_memory_and_disk(guests, out, ext4):
    """Each clone goes on with the disk as it was, on an overlay of its own."""
    source = guests.start(SPEC, disk=ext4)
    wait_journal(source)
    dump(source, out, "--disks", "overlay").expect(cli.DONE)
    before = digest(source.disk)
    with Clone(SPEC, out) as one, Clone(SPEC, out) as two:
        for clone in (one, two):
            wait_journal(clone, 5)
            clone.wait_checks(1)
            assert files(clone) == {"virtio0": str(clone.dir / "virtio0.qcow2")}
            assert clone.stderr() == ""
        wait_journal(source, 3)
    assert digest(source.disk) == before
    run("qemu-img", "check", source.disk)

    # Who would run it with a disk of another moment is told.
    os.utime(source.disk)
    cli.run("restore", out).expect_error(cli.FAILED, "has changed")
    with Clone(SPEC, out, "--changed-disks") as clone:
        wait_journal(clone, 3)


def test_restore_beside_a_vm_that_writes(guests, out, ext4):
    """Without --disks its disk is not that of the instant."""
    source = guests.start(SPEC, disk=ext4)
    wait_journal(source)
    dump(source, out).expect(cli.DONE)
    wait_journal(source)
    leftovers = set(Path("/var/tmp").glob("snapuffd-restore-*"))
    cli.run("restore", out).expect_error(cli.FAILED, "has changed")
    cli.run("restore", out, "--changed-disks").expect_error(
        cli.FAILED, "in use"
    )
    assert set(Path("/var/tmp").glob("snapuffd-restore-*")) == leftovers
    wait_journal(source)


def test_without_overlay_files_are_recorded(guests, out, ext4):
    source = guests.start(SPEC, disk=ext4)
    wait_journal(source, 1)
    dump(source, out).expect(cli.DONE)
    (disk,) = disks_of(out)
    assert disk["file"] == str(source.disk)
    assert disk["overlay"] is None
    assert disk["size"] > 0
    assert files(source) == {"virtio0": str(source.disk)}


def test_several_disks_into_a_directory(guests, out, ext4, tmp_path,
                                        monkeypatch):  # fmt: skip
    """Relative names, another format, one that is read-only; and twice."""
    monkeypatch.chdir(tmp_path)
    for name in ("second.raw", "third.raw"):
        Path(name).touch()
        os.truncate(name, 1 << 20)
    place = tmp_path / "overlays"
    place.mkdir()
    source = guests.start(
        SPEC.replace(extra=(
            "-drive", "if=virtio,format=raw,file=second.raw",
            "-drive", "if=virtio,format=raw,file=third.raw,readonly=on",
        )),
        disk=ext4,
    )  # fmt: skip
    wait_journal(source, 1)

    before = [str(source.disk), str(tmp_path / "second.raw")]
    for round_ in range(2):
        image = out.with_name(f"image{round_}")
        dump(source, image, "--disks", f"overlay:{place}").expect(cli.DONE)
        disks = disks_of(image)
        assert [d["file"] for d in disks] == [
            *before, str(tmp_path / "third.raw")
        ]  # fmt: skip
        assert [d["read_only"] for d in disks] == [False, False, True]
        assert disks[2]["overlay"] is None
        overlays = [d["overlay"] for d in disks[:2]]
        for overlay, base in zip(overlays, before):
            assert Path(overlay).parent == place
            info = json.loads(run("qemu-img", "info", "-U", "--output=json",
                                  overlay))  # fmt: skip
            assert info["full-backing-filename"] == base
        wait_journal(source)
        before = overlays
        shutil.rmtree(image)
    chain = json.loads(run("qemu-img", "info", "-U", "--output=json",
                           "--backing-chain", before[1]))  # fmt: skip
    assert len(chain) == 3
    assert len(list(place.iterdir())) == 4
    source.wait_checks(1)


def test_other_user_in_a_sandbox(guests, out, ext4):
    """QEMU makes the files, as it may."""
    source = guests.start(SPEC.replace(user="nobody", sandbox=True),
                          disk=ext4)  # fmt: skip
    dump(source, out, "--disks", "overlay").expect(cli.DONE)
    overlay = Path(disks_of(out)[0]["overlay"])
    assert overlay.stat().st_uid == source.disk.stat().st_uid != 0
    wait_journal(source)


def test_paused(guests, out, ext4):
    source = guests.start(SPEC, disk=ext4)
    wait_journal(source, 1)
    source.stop()
    dump(source, out, "--disks", "overlay").expect(cli.DONE)
    assert source.status() == "paused"
    assert files(source)["virtio0"] == disks_of(out)[0]["overlay"]
    source.cont()
    wait_journal(source)


# nothing is changed when it can't be done


@pytest.fixture(scope="module")
def target(module_guests, ext4):
    """A guest for all tests that must leave it as it is; nobody's."""
    target = module_guests.start(SPEC.replace(user="nobody"), disk=ext4)
    wait_journal(target, 1)
    return target


def test_directory_not_writable(target, out, tmp_path):
    place = tmp_path / "overlays"
    place.mkdir(mode=0o755)
    with unharmed(target):
        result = dump(target, out, "--disks", f"overlay:{place}")
        result.expect_error(cli.FAILED, "Permission denied")
        assert f"{place}/disk.qcow2.snapuffd-" in result.err
    assert not list(place.iterdir())
    assert not out.exists()


def test_directory_missing(target, out, tmp_path):
    with unharmed(target):
        dump(target, out, "--disks", f"overlay:{tmp_path}/missing"
             ).expect_error(cli.FAILED, "No such file")  # fmt: skip


def test_no_space_for_the_overlay(target, out):
    with host.tmpfs("size=64k,mode=777") as place, unharmed(target):
        result = dump(target, out, "--disks", f"overlay:{place}")
        result.expect_error(cli.FAILED, "No space")
        assert not list(place.iterdir())


def test_file_gone_before_the_instant(target, out):
    """QEMU refuses in the pause; what is left of the files is removed."""
    with unharmed(target):
        result = dump(
            target, out, "--disks", "overlay", "--exec-frozen",
            f"rm {shlex.quote(str(target.dir))}/*.snapuffd-*",
        )  # fmt: skip
        result.expect_error(cli.FAILED, "No such file")
        assert "disk.qcow2.snapuffd-" in result.err


def test_encrypted(guests, out, tmp_path):
    """An overlay of it would hold in plain what the guest writes."""
    image = tmp_path / "image"
    secret = "secret,id=key,data=test"
    # It times itself to choose a cost, and on some machines finds none.
    command = ["qemu-img", "create", "-q", "--object", secret, "-f", "qcow2",
               "-o", "encrypt.format=luks,encrypt.key-secret=key", image, "1M"]
    done = [subprocess.run(command, capture_output=True, text=True)]
    while done[-1].returncode and len(done) < 10:
        done.append(subprocess.run(command, capture_output=True, text=True))
    if done[-1].returncode:
        pytest.skip(f"qemu-img: {done[-1].stderr.strip()}")
    source = guests.start(GuestSpec(extra=(
        "-object", secret, "-drive", "if=none,id=crypt,format=qcow2,"
        f"file={image},encrypt.key-secret=key",
    )))  # fmt: skip
    dump(source, out, "--disks", "overlay").expect_error(
        cli.REFUSED, "encrypted"
    )


def test_no_file(guests, out):
    source = guests.start(GuestSpec(
        extra=("-drive", "if=none,id=nowhere,format=raw,file=null-co://"),
    ))  # fmt: skip
    before = procstate.settled(source.pid)
    dump(source, out, "--disks", "overlay").expect_error(
        cli.REFUSED, "nowhere"
    )
    procstate.assert_same(before)
    dump(source, out).expect(cli.DONE)
    (disk,) = disks_of(out)
    assert disk["size"] is None


@pytest.mark.parametrize(
    "options",
    [
        ["--disks", "copy"],
        ["--disks", "overlay:"],
        ["--disks", "overlay:relative"],
        ["--exec-frozen-timeout", "0"],
        ["--exec-frozen-timeout", "1x"],
        ["--exec-frozen-timeout", "-1"],
    ],
    ids=" ".join,
)
def test_usage(tmp_path, options):
    cli.run("dump", "--pid", 1, "--out", tmp_path / "image", *options
            ).expect_error(cli.USAGE)  # fmt: skip


def test_dump_fails_after_the_instant(guests, ext4):
    """The source stays on the overlay, and is told how to come back."""
    source = guests.start(SPEC, disk=ext4)
    wait_journal(source, 1)
    with host.tmpfs("size=8m") as place:
        result = dump(source, place / "image", "--disks", "overlay")
        result.expect(cli.FAILED)
        assert not list(place.iterdir())
    first, second = result.err.splitlines()
    assert "No space" in first
    overlay = files(source)["virtio0"]
    assert overlay != str(source.disk)
    assert overlay in second
    wait_journal(source)

    fold_back(source, re.search(r'{"execute": "block-commit".*?}}', second)[0])
    assert files(source)["virtio0"] == str(source.disk)
    os.unlink(overlay)
    wait_journal(source)
    source.wait_checks(1)


@pytest.mark.slow
def test_killed_at_any_time(guests, out, ext4):
    """Old disk or overlay: the source runs on and its disk is sound."""
    source = guests.start(SPEC, disk=ext4)
    wait_journal(source, 1)
    switched = 0
    for n in range(20):
        before = files(source)["virtio0"]
        with cli.Running("dump", "--pid", source.pid, "--out", out,
                         "--disks", "overlay") as running:  # fmt: skip
            time.sleep(0.01 * n)
            running.signal(signal.SIGKILL)
            running.wait()
        source.wait_status("running")
        now = files(source)["virtio0"]
        switched += now != before
        wait_journal(source, 1)
        assert not os.path.lexists(f"{out}.partial")
        shutil.rmtree(out, ignore_errors=True)
    print(f"{switched} of 20 went over")
    source.wait_checks(1)
    source.kill()
    run("qemu-img", "check", now)


# commands in the pause


LOOK = """
import os, sys
sys.path.insert(0, sys.argv[1])
from harness.qmp import Qmp
with Qmp(sys.argv[2]) as qmp:
    print(qmp.command("query-status")["status"])
for name in ("PID", "OUT", "DISKS"):
    print(os.environ["SNAPUFFD_" + name])
print(sys.stdin.read() == "")
print(os.listdir("/proc/self/fd"))
"""


def test_command_sees_the_vm_stand(target, out, tmp_path):
    script, said = tmp_path / "look", tmp_path / "said"
    script.write_text(LOOK)
    words = [sys.executable, script, Path(__file__).parent,
             target.monitor_path]  # fmt: skip
    command = f"{shlex.join(map(str, words))} > {shlex.quote(str(said))}"
    with unharmed(target):
        dump(target, out, "--exec-frozen", command).expect(cli.DONE)
    cli.run("verify", out).expect(cli.DONE)
    lines = said.read_text().splitlines()
    assert lines[:5] == [
        "paused", str(target.pid), str(out), str(target.disk), "True"
    ]  # fmt: skip
    assert lines[5] == "['0', '1', '2', '3']"  # the last is of listdir


def test_command_has_all_capabilities_and_our_stderr(target, out):
    result = dump(
        target, out, "--exec-frozen",
        "grep CapEff /proc/self/status; echo warned >&2",
    ).expect(cli.DONE)  # fmt: skip
    mine = re.search(r"^CapEff:.*$", Path("/proc/self/status").read_text(),
                     re.M)[0]  # fmt: skip
    assert result.err.splitlines() == [mine, "warned"]


@pytest.mark.parametrize(
    "command, words",
    [
        ("exit 3", "exit status 3"),
        ("kill -9 $$", "signal 9"),
        ("/does/not/exist 2>/dev/null", "exit status 127"),
    ],
)
def test_command_fails(target, out, command, words):
    with unharmed(target):
        dump(target, out, "--disks", "overlay", "--exec-frozen", command
             ).expect_error(cli.FAILED, words)  # fmt: skip
    assert not out.exists()


def wait_gone(pid):
    deadline = time.monotonic() + 20
    while True:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1][1]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state == "Z":
            return
        assert time.monotonic() < deadline, f"{pid} is still there"
        time.sleep(0.05)


def sleeper(path):
    """A command that does not end, whose child leaves its pid."""
    return f"sleep 600 & echo $! > {shlex.quote(str(path))}; wait"


def test_command_takes_too_long(target, out, tmp_path):
    with unharmed(target):
        dump(
            target, out, "--disks", "overlay", "--exec-frozen",
            sleeper(tmp_path / "pid"), "--exec-frozen-timeout", 1,
        ).expect_error(cli.FAILED, "more than 1 s")  # fmt: skip
        wait_gone((tmp_path / "pid").read_text().strip())
    assert not out.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_killed_in_the_command(target, out, tmp_path, number):
    """The VM runs again and the command ends, however the dumper ends."""
    path = tmp_path / "pid"
    before = procstate.settled(target.pid)
    with cli.Running(
        "dump", "--pid", target.pid, "--out", out, "--exec-frozen",
        sleeper(path), "--exec-frozen-timeout", 60,
    ) as running:  # fmt: skip
        target.wait("command", lambda: path.exists() and path.read_text())
        assert target.status() == "paused"
        running.signal(number)
        running.wait()
    target.wait_status("running")
    wait_gone(path.read_text().strip())
    target.wait_checks(1)
    procstate.assert_same(before)
    assert not os.path.lexists(f"{out}.partial")
