# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the dump of a process goes: whatever happens there is one line, leaves
no file and no harm; and what other verbs say of a process's image."""

import os
import shutil
import signal
import time

import pytest
from harness import cli, host, process
from harness.core import PT_LOAD, PT_NOTE, Core
from harness.process import PAGE, assert_nothing_left
from harness.victim import BUSY


def dump_core(target, out, *options):
    return cli.run("dump", "--pid", target.pid, "--format", "core", "--out",
                   out, *options)  # fmt: skip


# what cannot be written

WAYS = {
    "core": ["--format", "core"],
    "image": [],
    "tree": ["--tree"],
}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())


def fail(target, out, way, *words):
    with process.unharmed(target):
        result = cli.run("dump", "--pid", target.pid, "--out", out, *way)
        result.expect_error(cli.FAILED, *words)
    assert result.out == b""
    target.command("check")


@ways
@pytest.mark.parametrize("kind", ["file", "directory", "dangling"])
def test_what_exists_is_left_as_it_is(start, out, way, kind):
    if kind == "file":
        out.write_bytes(b"precious")
    elif kind == "directory":
        out.mkdir()
        (out / "memory.core").write_bytes(b"precious")
    else:
        out.symlink_to("nowhere")
    fail(start(*BUSY), out, way, "exists")
    if kind == "file":
        assert out.read_bytes() == b"precious"
        out.unlink()
    elif kind == "directory":
        assert os.listdir(out) == ["memory.core"]
        assert (out / "memory.core").read_bytes() == b"precious"
        shutil.rmtree(out)
    else:
        assert os.readlink(out) == "nowhere"
        assert not (out.parent / "nowhere").exists()
        out.unlink()
    assert_nothing_left(out)


@ways
def test_no_directory(start, out, way):
    fail(start(*BUSY), out / "below" / "core", way, "No such file")
    assert_nothing_left(out)


@ways
def test_directory_that_is_a_file(start, out, way):
    out.write_bytes(b"")
    fail(start(*BUSY), out / "core", way, "Not a directory")
    out.unlink()


@ways
@pytest.mark.parametrize("mib", [0, 2, 10])
def test_full_disk(start, way, mib):
    """At the first write, and when most was written."""
    target = start("journal=3,0,4096", "registers")
    with host.tmpfs(f"size={mib << 20 or PAGE}") as full:
        fail(target, full / "core", way, "No space left")
        assert not os.listdir(full)


@ways
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted(start, out, way, number):
    target = start("journal=1,0,8192")
    with process.unharmed(target):
        for delay in (0.01, 0.4):
            with cli.Running("dump", "--pid", target.pid, "--out", out,
                             "--rate-limit", "8", *way) as dump:  # fmt: skip
                time.sleep(delay)
                # Not before it can take it.
                host.wait_for(lambda: takes(dump.pid, number))
                dump.signal(number)
                dump.wait().expect_error(cli.FAILED, "interrupted")
            assert_nothing_left(out)
    target.command("check")


def takes(pid, number):
    with open(f"/proc/{pid}/status") as status:
        mask = next(int(line.split()[1], 16) for line in status
                    if line.startswith("SigCgt:"))  # fmt: skip
    return mask >> (number - 1) & 1


# a core to a reader


@pytest.fixture
def spool(tmp_path, monkeypatch):
    """What a core to stdout passes through."""
    path = tmp_path / "spool"
    path.mkdir()
    monkeypatch.setenv("TMPDIR", str(path))
    return path


def test_stream_leaves_nothing_in_tmpdir(start, judge, spool, tmp_path):
    target = start(*BUSY)
    core = tmp_path / "core"
    with process.unharmed(target):
        result = dump_core(target, "-").expect(cli.DONE)
    core.write_bytes(result.out)
    judge(core)
    assert not os.listdir(spool)


def stream(target, *options):
    reader, writer = os.pipe()
    try:
        return reader, cli.Running(
            "dump", "--pid", target.pid, "--format", "core", "--out", "-",
            *options, stdout=writer,
        )  # fmt: skip
    finally:
        os.close(writer)


@pytest.mark.parametrize("n_read", [0, 1, 1 << 20])
def test_reader_that_closes_early(start, spool, n_read):
    target = start("journal=1,0,4096")
    with process.unharmed(target):
        reader, dump = stream(target)
        with dump:
            left = n_read
            while left:
                left -= len(os.read(reader, left))
            os.close(reader)
            dump.wait().expect_error(cli.FAILED, "reader")
    assert not os.listdir(spool)
    target.command("check")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("when", ["captures", "streams"])
def test_interrupted_stream(start, spool, number, when):
    target = start("journal=1,0,8192")
    limit = ["--rate-limit", "8"] if when == "captures" else []
    with process.unharmed(target):
        reader, dump = stream(target, *limit)
        with dump, os.fdopen(reader, "rb", buffering=0) as stdout:
            if when == "captures":
                host.wait_for(lambda: os.listdir(spool))
                time.sleep(0.2)
            else:
                stdout.read(1)  # and no more: it waits for us
                assert not os.listdir(spool)
                time.sleep(0.1)
            dump.signal(number)
            dump.wait(20).expect_error(cli.FAILED, "interrupted")
    assert not os.listdir(spool)
    target.command("check")


def test_full_tmpdir(start, monkeypatch):
    target = start("journal=3,0,4096", "registers")
    for mib in (0, 2, 10):
        with host.tmpfs(f"size={mib << 20 or PAGE}") as full:
            monkeypatch.setenv("TMPDIR", str(full))
            fail(target, "-", WAYS["core"], "No space left")
            assert not os.listdir(full)


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_tmpdir_that_is_none(start, spool, kind):
    spool.rmdir()
    if kind == "file":
        spool.write_bytes(b"")
    fail(start(*BUSY), "-", WAYS["core"], "TMPDIR")


# what other verbs say


@pytest.fixture(scope="module")
def kept(victim_exe, tmp_path_factory):
    """An image and a tree's, for all tests that only read."""
    host.require_root()
    place = tmp_path_factory.mktemp("kept")
    target = process.Target([victim_exe, "journal=1,1", "registers"])
    with target:
        target.wait_line("^ready$")
        for name, options in (("image", ()), ("tree", ("--tree",))):
            cli.run("dump", "--pid", target.pid, "--out", place / name,
                    "--quiet", *options).expect(cli.DONE)  # fmt: skip
        yield place, target.pid
    shutil.rmtree(place)


def test_inspect_and_verify(kept):
    place, pid = kept
    for image in (place / "image", place / "tree" / str(pid)):
        cli.run("verify", image).expect(cli.DONE)
        found = cli.run("inspect", image, "--json").expect(cli.DONE).json()
        assert found["kind"] == "process"
        about = found["process"]
        assert about["pid"] == pid and about["argv"][1:] == [
            "journal=1,1", "registers"
        ]  # fmt: skip
        assert os.path.realpath(about["argv"][0]) == about["exe"]
        names = [thread["name"] for thread in about["threads"]]
        assert names[0] == "main" and "registers" in names
        assert about["n_mappings"] == len(found["mappings"])
        core = Core(image / "memory.core")
        tids = [thread["tid"] for thread in about["threads"]]
        assert core.tids() == tids
        # Of each mapping, the core has as much as is said.
        loads = {s.addr: s for s in core.segments if s.kind == PT_LOAD}
        for row in found["mappings"]:
            start, end = int(row["start"], 16), int(row["end"], 16)
            assert loads[start].len == end - start
            assert loads[start].file_len == row["held"]
        text = cli.run("inspect", image).expect(cli.DONE).out.decode()
        assert f"of pid {pid} " in text and about["exe"] in text


def test_convert_to_core(kept, tmp_path, judge):
    place, _ = kept
    core = tmp_path / "core"
    cli.run("convert", place / "image", "--to", "core", "--out",
            core).expect(cli.DONE)  # fmt: skip
    want = (place / "image" / "memory.core").read_bytes()
    assert core.read_bytes() == want
    again = cli.run("convert", place / "image", "--to", "core", "--out", core)
    again.expect_error(cli.FAILED, "exists")
    sent = cli.run("convert", place / "image", "--to", "core", "--out", "-")
    assert sent.expect(cli.DONE).out == want
    with host.tmpfs("size=2M") as full:
        cli.run("convert", place / "image", "--to", "core", "--out",
                full / "core").expect_error(cli.FAILED, "space")  # fmt: skip
        assert not os.listdir(full)


def test_convert_to_raw(kept, tmp_path):
    """A file for each part of the memory, named by its addresses."""
    place, _ = kept
    raw = tmp_path / "raw"
    cli.run("convert", place / "image", "--to", "raw", "--out",
            raw).expect(cli.DONE)  # fmt: skip
    core = Core(place / "image" / "memory.core")
    held = n_bytes = 0
    for path in raw.iterdir():
        start, end = (int(word, 16) for word in path.stem.split("-"))
        data = path.read_bytes()
        assert len(data) == end - start
        assert data == core.read(start, len(data)), path
        n_bytes += len(data)
    held = sum(s.file_len for s in core.segments if s.kind == PT_LOAD)
    assert n_bytes == held
    cli.run("convert", place / "image", "--to", "raw", "--out",
            raw).expect_error(cli.FAILED, "exists")  # fmt: skip


@pytest.mark.parametrize(
    "args",
    [
        ["inspect", "IMAGE"],
        ["inspect", "IMAGE", "--json"],
        ["verify", "IMAGE"],
        ["convert", "IMAGE", "--to", "core", "--out", "OUT"],
        ["convert", "IMAGE", "--to", "raw", "--out", "OUT"],
        ["convert", "IMAGE", "--to", "qemu", "--out", "OUT"],
        ["restore", "IMAGE", "--dir", "OUT"],
    ],
    ids=" ".join,
)
def test_a_tree_is_no_image(kept, out, args):
    words = {"IMAGE": kept[0] / "tree", "OUT": out}
    result = cli.run(*(words.get(arg, arg) for arg in args))
    result.expect_error(cli.FAILED, "name one of them")
    assert result.out == b""
    assert_nothing_left(out)


@pytest.mark.parametrize(
    "args",
    [
        ["convert", "IMAGE", "--to", "qemu", "--out", "OUT"],
        ["convert", "IMAGE", "--to", "devices", "--out", "OUT"],
        ["convert", "IMAGE", "--to", "mapped-ram", "--out", "OUT"],
        ["restore", "IMAGE", "--dir", "OUT"],
        ["restore", "IMAGE", "--print"],
    ],
    ids=" ".join,
)
def test_only_of_a_qemu(kept, out, args):
    words = {"IMAGE": kept[0] / "image", "OUT": out}
    result = cli.run(*(words.get(arg, arg) for arg in args))
    result.expect_error(cli.FAILED, "image of a process")
    assert result.out == b""
    assert_nothing_left(out)


# damage


@pytest.fixture
def image(kept, tmp_path):
    path = tmp_path / "damaged"
    shutil.copytree(kept[0] / "image", path)
    yield path
    shutil.rmtree(path)


def flip(path, at):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


def some_page(core, zero):
    """Where in the file a page is that is, or is not, of zeros."""
    for s in core.segments:
        if s.kind != PT_LOAD:
            continue
        for at in range(s.offset, s.offset + s.file_len, PAGE):
            with open(core.path, "rb") as file:
                file.seek(at)
                if any(file.read(PAGE)) != zero:
                    return at
    raise AssertionError("no such page")


PLACES = {
    "page": lambda core: some_page(core, False) + 1234,
    "zeros": lambda core: some_page(core, True) + 1234,
    "header": lambda core: 20,
    "phdr": lambda core: 64 + 8,
    "note": lambda core: next(
        s.offset + 16 for s in core.segments if s.kind == PT_NOTE
    ),
    "note-end": lambda core: next(
        s.offset + s.file_len - 1 for s in core.segments if s.kind == PT_NOTE
    ),
    "end": lambda core: core.path.stat().st_size - 1,
}


@pytest.mark.parametrize("place", PLACES)
def test_damaged_core(image, out, place):
    core = Core(image / "memory.core")
    cli.run("verify", image).expect(cli.DONE)
    flip(core.path, PLACES[place](core))
    cli.run("verify", image).expect_error(cli.FAILED, "memory.core is damaged")
    if place == "zeros":
        return  # not read by others: nothing was there
    cli.run("convert", image, "--to", "core", "--out", out).expect_error(
        cli.FAILED, "memory.core is damaged"
    )
    assert_nothing_left(out)


@pytest.mark.parametrize("how", ["shorter", "longer", "empty", "missing"])
def test_core_of_another_length(image, out, how):
    core = image / "memory.core"
    size = core.stat().st_size
    if how == "missing":
        core.unlink()
    else:
        os.truncate(core, {"shorter": size - 1, "longer": size + 1,
                           "empty": 0}[how])  # fmt: skip
    for args in (["verify", image],
                 ["convert", image, "--to", "core", "--out", out]):  # fmt: skip
        cli.run(*args).expect_error(cli.FAILED, "memory.core")
    assert_nothing_left(out)


def test_every_other_file_is_checked(image):
    """A byte of any is missed by none."""
    for path in image.iterdir():
        if path.name == "memory.core":
            continue
        whole = path.read_bytes()
        for at in {0, len(whole) // 3, len(whole) // 2, len(whole) - 1}:
            flip(path, at)
            cli.run("verify", image).expect_error(cli.FAILED)
            path.write_bytes(whole)
    cli.run("verify", image).expect(cli.DONE)
