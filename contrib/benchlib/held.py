# SPDX-License-Identifier: GPL-2.0-or-later
"""contrib/bench-core --held: what it costs a process that its system calls are
held (snapuffd dump --hold-unmaps), which is until all of it is captured."""

import contextlib
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from .table import number

SOURCE = Path(__file__).with_suffix(".c")
CALLS = {"getppid": "getppid", "mmap": "mmap, write, munmap"}
#: As columns: while what is going on.
STATES = {"alone": "no dump", "no": "a dump", "yes": "a dump that holds calls"}
MIB = 256
#: So that it is captured for longer than anything is measured: MIB a second.
RATE = 4
READY_S = 30


def build(directory):
    program = Path(directory) / "held"
    subprocess.run(["cc", "-std=gnu17", "-O2", "-Wall", "-Wextra", "-o",
                    program, SOURCE], check=True)  # fmt: skip
    return program


class Process:
    def __init__(self, program):
        self._process = subprocess.Popen(
            [program, str(MIB)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        self.pid = self._process.pid
        self._process.stdout.readline()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.communicate()

    def round_ns(self, calls, ms):
        self._process.stdin.write(f"{calls} {ms}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def is_traced(self):
        with open(f"/proc/{self.pid}/status") as status:
            return "TracerPid:\t0\n" not in status.read()

    def is_protected(self):
        """Whether some of its memory is registered with a userfaultfd."""
        with open(f"/proc/{self.pid}/smaps") as smaps:
            return any(line.startswith("VmFlags:") and " uw" in line
                       for line in smaps)  # fmt: skip


@contextlib.contextmanager
def dumping(snapuffd, process, hold, directory):
    """A dump that is in the middle of it, and is given up."""
    is_under_way = process.is_traced if hold == "yes" else process.is_protected
    out, said = Path(directory) / "image", Path(directory) / "said"
    with open(said, "w") as stderr:
        dump = subprocess.Popen(
            [snapuffd, "dump", "--pid", str(process.pid), "--out", out,
             "--hold-unmaps", hold, "--retries", "0", "--buffer", "16M",
             "--rate-limit", str(RATE)], stderr=stderr,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + READY_S
        # It is traced, or registered, for a moment before the instant, too.
        n_seen = 0
        while n_seen < 30:
            if dump.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"no dump: {said.read_text().strip()}")
            n_seen = n_seen + 1 if is_under_way() else 0
            time.sleep(0.01)
        yield
        if dump.poll() is not None or not is_under_way():
            raise RuntimeError("the dump was over too soon")
    finally:
        if dump.poll() is None:
            dump.send_signal(signal.SIGINT)
        dump.wait()
        shutil.rmtree(out, ignore_errors=True)


def measure(snapuffd, rounds, ms, directory):
    """{calls: {state: ns}}: medians."""
    found = {calls: {state: [] for state in STATES} for calls in CALLS}
    with tempfile.TemporaryDirectory(
        prefix="snapuffd-bench-", dir=directory
    ) as room, Process(build(room)) as process:  # fmt: skip
        for _ in range(rounds):
            for state in STATES:
                way = (contextlib.nullcontext() if state == "alone"
                       else dumping(snapuffd, process, state, room))  # fmt: skip
                with way:
                    for calls in CALLS:
                        found[calls][state].append(process.round_ns(calls, ms))
    return {calls: {state: statistics.median(all_ns)
                    for state, all_ns in states.items()}
            for calls, states in found.items()}  # fmt: skip


def text(found):
    """A table: us a round, and how many times as much."""
    lines = ["One round while there is, us:", "",
             "| calls | " + " | ".join(STATES.values()) + " | held / not |",
             "|---|--:|--:|--:|--:|"]  # fmt: skip
    for calls, states in found.items():
        cells = [number(ns / 1e3) for ns in states.values()]
        cells.append(f"{number(states['yes'] / states['no'])} ×")
        lines.append(f"| {CALLS[calls]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
