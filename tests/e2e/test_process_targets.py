# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs as they are installed, under load: dumped, they go on as if nothing
had been, and their load stalls for a shorter time than with gdb's gcore."""

import shutil
import time

import pytest
from harness import cli, process, procstate, service
from harness.core import Core

TARGETS = {
    "redis": (service.Redis, {"main"}),
    "nginx": (service.Nginx, {"ngx_single_process_cycle"}),
    "postgres": (service.Postgres, {"PostmasterMain"}),
    "python": (service.python, {"Py_BytesMain"}),
    "java": (service.java, {"JLI_Launch"}),
    "go": (service.go, {"main.main", "main.allocate", "runtime.mcall",
                        "runtime.mstart", "runtime.systemstack",
                        "runtime.goexit.abi0"}),
    "namespaces": (service.namespaces, {"Py_BytesMain"}),
}  # fmt: skip

# What a JVM does by itself: code that it compiles and memory of the heap that
# it gives back are parts of what it reserved before.
OWN_CHANGES = {"java": ("mapping",), "go": ("lost mapping",)}


class Loaded:
    """The program while its load is on."""

    def __init__(self, program):
        self._program = program

    def __enter__(self):
        self.load, self._bench = self._program.load()
        self.load.wait_calls()
        return self

    def __exit__(self, kind, *_):
        if not kind:
            self.load.wait_calls()
        self.load.close()
        if self._bench:
            alive = self._bench.is_alive()
            self._bench.close()
            assert kind or alive, f"the load ended: {self._bench.text()}"
        self._program.settle()

    def stall_ms(self, since, until):
        self.load.wait_calls()
        return self.load.longest_ms(since, until)


@pytest.mark.parametrize("name", TARGETS)
def test_program(targets, out, tmp_path, name):
    process.require_gdb()
    build, frames = TARGETS[name]
    place = tmp_path / "place"
    place.mkdir()
    program = build(targets, place)
    target = program.target
    exe = target.exe

    # A first load makes it as large as it is to be.
    with Loaded(program):
        time.sleep(0.5)
    with process.unharmed(target, OWN_CHANGES.get(name, ())):
        with Loaded(program) as loaded:
            dumped = process.dump(target.pid, out)
            ours = loaded.stall_ms(dumped.since, dumped.until)
            assert procstate.traces_left(procstate.capture(target.pid)) == []
    program.judge()
    with Loaded(program) as loaded:
        gcores = loaded.stall_ms(*process.gcore(target.pid, tmp_path / "gcore"))
    (tmp_path / "gcore").unlink()
    print(f"{name}: the load stalled for {ours:.0f} ms, with gcore for "
          f"{gcores:.0f} ms; {dumped.figures}")  # fmt: skip

    found = process.gdb_threads(exe, dumped.core)
    assert set(found) == set(Core(dumped.core).tids())
    if name == "namespaces":
        # Numbers as the process sees them, as in the kernel's own cores: gdb
        # takes each thread for two where libthread_db knows it by another.
        assert len(found) == len(dumped.tids_min) == len(dumped.tids_max)
    else:
        process.assert_threads(dumped, found)
    # The main thread is the first one.
    names = process.gdb_backtrace(exe, dumped.core, Core(dumped.core).tids()[0])
    assert frames & set(names), names
    assert names.count("??") < len(names)
    program.judge()
    assert ours < 2 * gcores


def shared_memory(core, pid):
    """What the core has of the largest mapping that processes share."""
    shared = max(
        (m for m in procstate.capture(pid).mappings if "s" in m.perms),
        key=lambda m: m.end - m.start,
    )
    return Core(core).read(shared.start, shared.end - shared.start)


def test_postgres_tree_is_of_one_instant(targets, out, tmp_path):
    """All of its processes see the same shared memory in their cores."""
    program = service.Postgres(targets, tmp_path)
    target = program.target
    with process.unharmed(target), Loaded(program):
        before = {target.pid} | process.descendants(target.pid)
        cli.run("dump", "--pid", target.pid, "--tree", "--out", out,
                "--json").expect(cli.DONE)  # fmt: skip
        after = {target.pid} | process.descendants(target.pid)
        lasting = before & after
        cores = {int(p.name): p / "memory.core" for p in out.iterdir()
                 if p.name.isdigit()}  # fmt: skip
        assert lasting <= cores.keys()
        memory = {pid: shared_memory(cores[pid], pid) for pid in lasting}
        for pid in lasting:
            process.assert_clean(pid)
    program.judge()
    first = memory[target.pid]
    assert len(first) > 32 << 20 and first.count(0) < len(first)
    for pid, data in memory.items():
        assert data == first, f"{pid} has another shared memory"
    exe = target.exe
    for pid in lasting:
        names = process.gdb_backtrace(exe, cores[pid], pid)
        assert "PostmasterMain" in names, names
    shutil.rmtree(out)
