# SPDX-License-Identifier: GPL-2.0-or-later
"""The program fails, or is killed, at each of its points (src/base/inject.h):
what it dumps runs on as it was, and can be dumped the next time.

Targets are shared by all cases: that they survive hundreds is part of the test.
By default there is an error at every other point and a kill at the rest;
SNAPUFFD_TEST_ALL=points has both at each, in one kind of dump that comes there;
SNAPUFFD_TEST_ALL=1 has them in all kinds, and also at the second time.
"""

import itertools
import os
import re
from pathlib import Path

import pytest
from harness import cli, host, inject

HOW_MUCH = os.environ.get("SNAPUFFD_TEST_ALL")
ALL = HOW_MUCH == "1"
SOURCES = Path(__file__).resolve().parents[2] / "src"

#: An error here is made up for, with a warning.
TOLERATED = {"hold-start"}

#: Of a disk that goes on in its overlay it is said how to undo that.
FOLDS_BACK = "this folds it back: "

#: The exit code of an error, where it is not FAILED.
CODES = {"cover-register": (cli.REFUSED,)}


#: Areas with a kind of dump to themselves, in the order in which they come.
AREAS = ("handover", "hold", "core", "cgroup", "tree", "vm", "devices",
         "disks", "overlay", "hook", "stream", "others", "writers")  # fmt: skip
#: Points of other areas that only a VM comes to.
OF_A_VM = {"arm-register"}


def _when(case):
    """Cases of one kind come together: then a target is started once."""
    point, action = case
    area = "vm" if point in OF_A_VM else point.split("-")[0]
    when = AREAS.index(area) + 1 if area in AREAS else 0
    return when, action if when < AREAS.index("vm") else ""


def _cases():
    try:
        points = inject.points()
    except (pytest.skip.Exception, OSError):
        return [("none", "error")]
    both = [(point, ["error", "kill"] if fails else ["kill"])
            for point, fails in points.items()]  # fmt: skip
    if not HOW_MUCH:
        both = [(point, [actions[i % len(actions)]])
                for i, (point, actions) in enumerate(both)]  # fmt: skip
    cases = [(point, action) for point, actions in both for action in actions]
    return sorted(cases, key=_when)


@pytest.fixture(scope="module")
def scenes(module_guests, victim_exe):
    host.require_root()
    inject.program()
    scenes = inject.Scenes(module_guests, victim_exe, ALL)
    yield scenes
    scenes.end()
    print(f"waits that killed dumpers ended: {scenes.interrupted or 'none'}")


def test_points_are_those_of_the_sources():
    """A file with points is one of those that are compiled with them."""
    written = []
    for path in SOURCES.rglob("*.c"):
        written += re.findall(r'\bINJECT\w*\([^"()]*"([^"]+)"\)',
                              path.read_text())  # fmt: skip
    assert sorted(written) == sorted(inject.points())
    assert len(written) == len(set(written))


def test_program_that_is_installed_has_none():
    assert b"SNAPUFFD_INJECT" not in Path(cli.program()).read_bytes()


def assert_failed(result, out, point):
    if point in TOLERATED:
        result.expect(cli.DONE)
        return
    assert result.code in CODES.get(point, (cli.FAILED,)), result
    lines = [line for line in result.err.splitlines()
             if not line.startswith("snapuffd: warning: ")]  # fmt: skip
    lines = [line for line in lines if FOLDS_BACK not in line] or lines
    assert len(lines) == 1, result.err
    assert re.match("snapuffd: [^:]+: .", lines[0]), lines[0]
    assert not os.path.lexists(out)
    assert not os.path.lexists(f"{out}.partial")


def assert_whole(scene, out):
    """Where there is something, it is all."""
    if out.is_dir() and "--tree" not in scene.options:
        cli.run("verify", out).expect(cli.DONE)


def hit(scene, order, point, out):
    """Until the dump has come to the point: some depend on the moment."""
    for _ in range(5):
        result, log = inject.run(order, *scene.args(out))
        if point in log:
            return result
        assert result.code in scene.allow, result
        inject.remove(out)
    raise AssertionError(f"no dump came to {point}")


def inject_once(scene, point, action, nth, out):
    result = hit(scene, f"{point}:{action}:{nth}", point, out)
    if nth > 1 and result.code in scene.allow:
        pass  # there was no second time
    elif action == "error":
        assert_failed(result, out, point)
    else:
        # That of the process which was killed, or of who missed it.
        assert result.code in (-9, cli.FAILED), result
    assert_whole(scene, out)
    scene.after(action == "kill")
    # What was killed leaves DIR.partial, which the next one takes over.
    if out.exists():
        inject.remove(out)
    again = cli.run(*scene.next_args(out))
    assert again.code in scene.allow, again
    scene.check(killed=False)
    assert_whole(scene, out)
    inject.remove(out)


@pytest.mark.parametrize("point, action", _cases(),
                         ids=lambda value: value)  # fmt: skip
def test_target_runs_on(scenes, point, action, out):
    names = list(itertools.islice(scenes.coming_to(point), None if ALL else 1))
    assert names, f"no dump comes to {point}"
    for name in names:
        for nth in (1, 2) if ALL else (1,):
            scene = scenes.get(name, action)
            scene.before()
            try:
                inject_once(scene, point, action, nth, out)
            except BaseException:
                scene.end()
                scenes.end(is_well=False)
                raise
            scene.end()
