# SPDX-License-Identifier: GPL-2.0-or-later
"""The process that contrib/bench-core dumps (victim.c), seen from outside.

All times are seconds of CLOCK_MONOTONIC, which is time.monotonic().
"""

import bisect
import struct
import subprocess
import time
from pathlib import Path

from .observe import memory_of

SOURCE = Path(__file__).with_suffix(".c")
POLL_S = 0.01
READY_S = 300
END_S = 60
LONG_GAP_S = 1e-3
PT_LOAD = 1


def build(directory):
    """Returns the path of the program."""
    program = Path(directory) / "victim"
    subprocess.run(
        ["cc", "-std=gnu17", "-O2", "-Wall", "-Wextra", "-pthread",
         "-o", program, SOURCE], check=True,
    )  # fmt: skip
    return program


class Victim:
    """Runs until the end of the `with` block; says all when it is stopped."""

    def __init__(self, program, mib, huge, directory):
        self.mib = mib
        # Files, for a pipe's other end is outside of what is dumped.
        self.out = directory / "victim.out"
        self.err = directory / "victim.err"
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            self.process = subprocess.Popen(
                [program, "run", str(mib), "huge" if huge else "small"],
                stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                start_new_session=True,
            )  # fmt: skip
        self.pid = self.process.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def _failed(self, what):
        words = self.err.read_text(errors="replace").strip()
        return RuntimeError(f"the victim {what}" + (words and f": {words}"))

    def wait_ready(self):
        deadline = time.monotonic() + READY_S
        while not (text := self.out.read_text()).endswith("\n"):
            if self.process.poll() is not None:
                raise self._failed("is gone")
            if time.monotonic() > deadline:
                raise self._failed("is never ready")
            time.sleep(POLL_S)
        _, self.address, self.length = text.split()
        self.address, self.length = int(self.address), int(self.length)

    def huge_kib(self):
        return memory_of(self.pid).huge_kib

    def stop(self):
        """Its writes; RuntimeError if it did not live until now."""
        if self.process.poll() is not None:
            raise self._failed("is gone")
        self.process.terminate()
        try:
            code = self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            raise self._failed("does not run on") from None
        if code:
            raise self._failed(f"ended with {code}")
        return Samples(self.out.read_text())


class Samples:
    """When how many writes were made.  `rows`: (s, writes, longest gap in s
    since the row before).  `gaps`: (start, end) of the long ones."""

    def __init__(self, text):
        lines = [line.split() for line in text.splitlines()[1:]]
        self.rows = [
            (int(line[1]) / 1e9, int(line[2]), float(line[3]) / 1e9)
            for line in lines if line[0] == "sample"
        ]  # fmt: skip
        ends = [(int(line[1]) / 1e9, float(line[2]) / 1e9)
                for line in lines if line[0] == "gap"]  # fmt: skip
        self.gaps = [(end - gap, end) for end, gap in ends]
        self._times = [t for t, _, _ in self.rows]

    def longest_gap(self, start, end):
        """Of those that end after the start and begin before the end."""
        first = bisect.bisect_right(self._times, start)
        last = bisect.bisect_right(self._times, end)
        gaps = [gap for _, _, gap in self.rows[first:last]]
        gaps += [gap for t, _, gap in self.rows[last : last + 1]
                 if t - gap < end]  # fmt: skip
        return max(gaps, default=0.0)

    def longest_own_gap(self, start, end, stalls):
        """The same, without the times at which nothing ran on the machine.
        `stalls` are those, (start, end), in order."""
        if not stalls:
            return self.longest_gap(start, end)
        gaps = [gap for t, _, gap in self.rows
                if gap <= LONG_GAP_S and start < t < end]  # fmt: skip
        gaps += [
            b - a - sum(max(0.0, min(b, t) - max(a, s)) for s, t in stalls)
            for a, b in self.gaps if b > start and a < end
        ]  # fmt: skip
        return max(gaps, default=0.0)

    def _until(self, t):
        """Writes before t; between samples they are taken to be even."""
        i = bisect.bisect_left(self._times, t)
        if i == 0 or i == len(self.rows):
            raise RuntimeError("the victim was not watched for long enough")
        (t0, n0, _), (t1, n1, gap) = self.rows[i - 1], self.rows[i]
        # A gap is at the end of its sample, give or take a tick.
        t1 = max(t1 - gap, t0 + 1e-9)
        return n0 + (n1 - n0) * min(1, (t - t0) / (t1 - t0))

    def rate(self, start, end):
        return (self._until(end) - self._until(start)) / (end - start)

    def steps(self, zero, start, end, width):
        """[(s after zero, writes/s)], one for each width."""
        n = round((end - start) / width)
        return [
            (start + i * width - zero,
             self.rate(start + i * width, start + (i + 1) * width))
            for i in range(n)
        ]  # fmt: skip


def offset_in_core(path, address, length):
    """Where an ELF core file holds a range of memory, None if it does not."""
    with open(path, "rb") as core:
        head = core.read(64)
        if head[:5] != b"\x7fELF\x02":
            return None
        (table,) = struct.unpack_from("<Q", head, 32)
        size, n = struct.unpack_from("<HH", head, 54)
        core.seek(table)
        for _ in range(n):
            kind, _, offset, start, _, in_file, _, _ = struct.unpack(
                "<IIQQQQQQ", core.read(size)
            )
            if kind == PT_LOAD and start <= address and (
                address + length <= start + in_file
            ):  # fmt: skip
                return offset + address - start
    return None


def judge_core(program, path, victim):
    """None if the core's memory is of one instant, else what is wrong."""
    offset = offset_in_core(path, victim.address, victim.length)
    if offset is None:
        return f"{path.name} does not hold the victim's memory"
    done = subprocess.run(
        [program, "judge", path, str(offset), str(victim.mib)],
        capture_output=True, text=True,
    )  # fmt: skip
    return done.stderr.strip() or None if done.returncode else None
