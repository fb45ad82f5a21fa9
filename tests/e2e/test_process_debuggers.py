# SPDX-License-Identifier: GPL-2.0-or-later
"""Every debugger of Debian takes the core for what the kernel would have
written: all threads, their frames by name, memory."""

import re
import shutil
import subprocess

import pytest
from harness import host, memory, process
from harness.core import Core
from harness.victim import BUSY

NT_X86_XSAVE_LAYOUT = 0x205
FRAME_OF_REGISTERS = "registers_count"


def run(*argv):
    """What it prints, without a complaint."""
    if not shutil.which(argv[0]):
        pytest.skip(f"{argv[0]} is not installed")
    done = subprocess.run(
        list(map(str, argv)), stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def dumped(victim_exe, tmp_path_factory):
    """A core of ours and one of the kernel's, of the same process: (program,
    core, where the kernel's is, thread ids, its memory)."""
    host.require_root()
    place = tmp_path_factory.mktemp("debuggers")
    with process.Target([victim_exe, *BUSY, "wait", f"memory={place}"],
                        cwd=place) as target:  # fmt: skip
        target.wait_line("^ready$")
        core = process.dump(target.pid, place / "image").core
        tids = process.tids(target.pid)
        blocks = memory.where(target)
        theirs = place / "theirs"
        if process.why_no_kernel_core() is None:
            process.kernel_core(target, theirs)
    yield victim_exe, core, theirs, tids, blocks
    shutil.rmtree(place)


def assert_frames(text):
    for name in (FRAME_OF_REGISTERS, "block_poll", "write_journal"):
        assert re.search(rf"\b{name}\b", text), f"no {name} in {text}"


def test_gdb(dumped):
    exe, core, _, tids, _ = dumped
    assert set(process.gdb_threads(exe, core)) == tids
    assert_frames(process.gdb(exe, core, "thread apply all backtrace"))
    assert process.gdb(exe, core, "print journal->n_pages").endswith("= 1024\n")


def test_lldb(dumped):
    exe, core, _, tids, _ = dumped
    text = run("lldb", "--batch", "--no-lldbinit", "-o",
               f"target create {exe} --core {core}", "-o", "thread list",
               "-o", "bt all", "-o", "target variable journal->n_pages")  # fmt: skip
    listed = text[text.index("(lldb) thread list") : text.index("(lldb) bt all")]
    assert set(map(int, re.findall(r"\btid = (\d+)", listed))) == tids
    assert_frames(text[text.index("(lldb) bt all") :])
    assert "journal->n_pages = 1024" in text


DRGN = """
for thread in prog.threads():
    print("thread", thread.tid)
    print(prog.stack_trace(thread.tid))
print(prog.read({at}, 6))
"""


def test_drgn(dumped, tmp_path):
    exe, core, _, tids, blocks = dumped
    script = tmp_path / "script.py"
    # By address: drgn 0.0.22 does not know where a program was loaded, of the
    # kernel's cores neither.
    script.write_text(DRGN.format(at=blocks["anon"][0]))
    text = run("drgn", "-q", "-c", core, "-s", exe, script)
    assert set(map(int, re.findall(r"^thread (\d+)$", text, re.M))) == tids
    assert_frames(text)
    assert "b'anon 0'" in text


def test_elfutils(dumped):
    exe, core, _, tids, _ = dumped
    text = run("eu-stack", f"--core={core}", f"--executable={exe}")
    assert set(map(int, re.findall(r"^TID (\d+):$", text, re.M))) == tids
    assert_frames(text)
    assert "PRSTATUS" in run("eu-readelf", "-n", core)


def kinds(core):
    """Owner, type and length of each note, in their order."""
    return [(owner, kind, len(data)) for owner, kind, data in Core(core).notes()]


def by_thread(notes):
    """Those of each thread; the process's are with the first."""
    found = []
    for note in notes:
        if note[:2] == ("CORE", 1):
            found.append([])
        found[-1].append(note)
    return found


def test_notes_are_the_kernels(dumped):
    """The same of each thread, in the same order."""
    _, core, theirs, tids, _ = dumped
    if why := process.why_no_kernel_core():
        pytest.skip(why)
    # Of the process, since Linux 6.12, behind all threads.
    want = [note for note in kinds(theirs) if note[1] != NT_X86_XSAVE_LAYOUT]
    assert by_thread(kinds(core)) == by_thread(want)
    assert len(by_thread(want)) == len(tids)
    assert set(Core(theirs).tids()) == set(Core(core).tids()) == tids
    assert Core(theirs).tids()[0] == Core(core).tids()[0]
