# SPDX-License-Identifier: GPL-2.0-or-later
"""A thread of the program stalls at one of its points: whoever waits for it is
let go by the watchdog, and runs on as it was.

By default at those points at which the target stands or waits, and some others;
with SNAPUFFD_TEST_ALL at all that a dump comes to.
"""

import itertools
import os
import time

import pytest
from harness import cli, host, inject

ALL = os.environ.get("SNAPUFFD_TEST_ALL")

MAX_STALL_MS = 500
#: Longer than the watchdog lets anybody wait, and than it takes to end a dump.
STALL_S = 12

#: Somebody waits: the dump must not outlast the stall.
HOLDING = ("infect-stop-done", "park-done", "call-run", "call-result",
           "keeper-cure", "cure-regs", "cover-done", "freeze-stop-done",
           "freeze-regs", "freeze-done", "take-done", "rearm", "thaw",
           "scan-copy-done", "fault-take-done", "vm-stop-done", "devices-save-done",
           "vm-cont")  # fmt: skip
#: Nobody does.
FREE = ("probe-open", "image-sync")


def _points():
    if not ALL:
        return [*HOLDING, *FREE]
    try:
        return list(inject.points())
    except (pytest.skip.Exception, OSError):
        return ["none"]


@pytest.fixture(scope="module")
def scenes(module_guests, victim_exe):
    host.require_root()
    inject.program()
    scenes = inject.Scenes(module_guests, victim_exe, False)
    yield scenes
    scenes.end()


def stall(scene, point, out):
    """Until a dump has come to the point."""
    for _ in range(5):
        args = scene.args(out)
        began = time.monotonic()
        result, log = inject.run(
            f"{point}:stall={STALL_S}", *args, "--max-pause", MAX_STALL_MS // 2,
            "--max-stall", MAX_STALL_MS,
        )  # fmt: skip
        took_s = time.monotonic() - began
        if point in log:
            return result, took_s
        inject.remove(out)
    raise AssertionError(f"no dump came to {point}")


@pytest.mark.parametrize("point", _points())
def test_target_is_let_go(scenes, point, out):
    name = next(itertools.islice(scenes.coming_to(point), 1), None)
    assert name, f"no dump comes to {point}"
    scene = scenes.get(name, "kill")
    scene.before()
    try:
        result, took_s = stall(scene, point, out)
        assert result.code in (*scene.allow, cli.FAILED, -9), result
        if point in HOLDING:
            assert result.code in (cli.FAILED, -9), result
            assert took_s < STALL_S, result
        if point in FREE:
            assert result.code in scene.allow, result
        scene.after(True)
        inject.remove(out)
        assert cli.run(*scene.next_args(out)).code in scene.allow
        scene.check(killed=True)
        inject.remove(out)
    except BaseException:
        scene.end()
        scenes.end(is_well=False)
        raise
    scene.end()
