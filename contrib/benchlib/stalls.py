# SPDX-License-Identifier: GPL-2.0-or-later
"""When the machine itself stood still (stalls.c), which is nobody's doing here."""

import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")
END_S = 10


def build(directory):
    """Returns the path of the program."""
    program = Path(directory) / "stalls"
    subprocess.run(
        ["cc", "-std=gnu17", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra",
         "-pthread", "-o", program, SOURCE], check=True,
    )  # fmt: skip
    return program


def at_once(text):
    """[(start, end)], s of CLOCK_MONOTONIC: when all processors stood, of what
    the program prints."""
    lines = [line.split() for line in text.splitlines()]
    n_cpus = int(lines[0][1])
    edges = []
    for _, _, start, end in lines[1:]:
        edges += [(int(start) / 1e9, 1), (int(end) / 1e9, -1)]
    found, standing, since = [], 0, None
    for when, step in sorted(edges):
        standing += step
        if standing == n_cpus:
            since = when
        elif since is not None:
            found.append((since, when))
            since = None
    return found


class Stalls:
    """Watches until it is stopped, or until the end of the `with` block.
    RuntimeError where that is not allowed."""

    def __init__(self, program):
        self._process = subprocess.Popen(
            [program], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()

    def stop(self):
        self._process.terminate()
        out, err = self._process.communicate(timeout=END_S)
        if self._process.returncode:
            raise RuntimeError(err.strip() or "the watcher of stalls is gone")
        return at_once(out)
