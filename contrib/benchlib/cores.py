# SPDX-License-Identifier: GPL-2.0-or-later
"""The ways to dump a process that contrib/bench-core compares.

A trial is a fresh victim, one dump, and all that was to be seen of it.
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from . import facts
from .methods import allocated
from .observe import cpu_of, cpu_of_host
from .stalls import Stalls
from .victim import Victim, judge_core

TOP = Path(__file__).resolve().parents[2]
RUN_S = 1.0  # what the victim runs before
LOOKED_AT_S = 0.8  # of that, for the undisturbed rate
AFTER_S = 0.5
SHOWN_AFTER_S = 0.3
TICK_S = 0.01  # the victim's
STEP_S = 0.05  # of the rates that are kept for the picture
PATIENCE_S = 300
REFERENCE = "gcore"
OURS = "snapuffd"


@dataclass(frozen=True)
class Tool:
    """`argv`: of (program, pid, where the image goes).  `core`: of (program,
    where the image is, where there is room), the path of an ELF core."""

    what: str
    program: str | None
    argv: object
    core: object = None
    version: str = ""
    missing: str | None = None  # why it can't be run here


def _gcore_argv(program, pid, image):
    image.mkdir()
    return [program, "-o", str(image / "core"), str(pid)]


def _gcore_core(_program, image, _room):
    return next(image.glob("core.*"), None)


def _criu_argv(program, pid, image):
    image.mkdir()
    return [program, "dump", "--tree", str(pid), "--images-dir", str(image),
            "--leave-running", "--shell-job", "-v0"]  # fmt: skip


def _snapuffd_argv(program, pid, image):
    return [program, "dump", "--pid", str(pid), "--out", str(image), "--json"]


def _snapuffd_core(program, image, room):
    path = room / "core"
    subprocess.run(
        [program, "convert", str(image), "--to", "core", "--out", str(path)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return path


def _last_line(text):
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""


def _fetch_criu():
    """(path, None), or (None, why not)"""
    cache = Path(
        os.environ.get("SNAPUFFD_CACHE")
        or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        / "snapuffd"
    )  # fmt: skip
    done = subprocess.run(
        [Path(__file__).with_name("fetch-criu"), cache],
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        return None, _last_line(done.stderr)
    return str(cache / "criu" / "criu"), None


def tools(snapuffd, criu):
    """All of them, by name, also those that are missing."""
    gcore, why_criu = shutil.which("gcore"), None
    if not criu:
        criu, why_criu = _fetch_criu()
    elif not shutil.which(criu):
        criu, why_criu = None, f"{criu}: cannot be executed"
    ours = os.access(snapuffd, os.X_OK)
    return {
        "gcore": Tool(
            "`gcore -o F PID`", gcore, _gcore_argv, _gcore_core,
            facts.output("gdb", "--version").split("\n")[0],
            None if gcore else "gcore is not installed (package gdb)",
        ),
        "criu": Tool(
            "`criu dump --tree PID --images-dir DIR --leave-running`",
            criu, _criu_argv, None,
            "criu " + facts.output(criu, "--version").removeprefix("Version: ")
            if criu else "", why_criu,
        ),
        "snapuffd": Tool(
            "`snapuffd dump --pid PID --out DIR`", snapuffd, _snapuffd_argv,
            _snapuffd_core, facts.output(snapuffd, "--version")
            if ours else "",
            None if ours else f"{snapuffd}: cannot be executed",
        ),
    }  # fmt: skip


def why_no_huge():
    path = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not path.exists() or "[never]" in path.read_text():
        return "transparent huge pages are switched off"
    return None


@dataclass
class _Done:
    code: int
    started: float
    finished: float
    cpu_s: float
    out: str
    err: str


def _run(argv, directory):
    out, err = directory / "stdout", directory / "stderr"
    # gdb would ask servers for debug information.
    env = {k: v for k, v in os.environ.items() if k != "DEBUGINFOD_URLS"}
    with open(out, "wb") as o, open(err, "wb") as e:
        before = os.times()
        started = time.monotonic()
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=o,
                                   stderr=e, env=env,
                                   start_new_session=True)  # fmt: skip
        try:
            code = process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # gcore is a script
            code = process.wait()
            e.write(f"\nnot done after {PATIENCE_S} s".encode())
        finished = time.monotonic()
        after = os.times()
    cpu = (after.children_user + after.children_system
           - before.children_user - before.children_system)  # fmt: skip
    return _Done(code, started, finished, cpu,
                 out.read_text(errors="replace"),
                 err.read_text(errors="replace"))  # fmt: skip


def _rest_of_the_cpus(pid):
    """Lets the victim run, and says what share of all CPUs others had."""
    before = cpu_of_host() - cpu_of(pid)
    time.sleep(RUN_S)
    others = cpu_of_host() - cpu_of(pid) - before
    return max(0.0, others) / RUN_S / os.cpu_count()


def _sync(image):
    for path in (*image.iterdir(), image):
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)


def _judge(tool, program, image, room, victim):
    """None if the image is of one instant, or nobody can tell."""
    if not tool.core:
        return None
    try:
        core = tool.core(tool.program, image, room)
    except subprocess.CalledProcessError as error:
        return f"no core of it: {_last_line(error.stderr)}"
    if core is None:
        return "there is no core file"
    return judge_core(program, core, victim)


def _figures(done, samples, stood, synced, image):
    start, end = done.started, done.finished
    before = samples.rate(start - LOOKED_AT_S, start)
    during = samples.rate(start, end)
    rates = samples.steps(start, start - LOOKED_AT_S, end + SHOWN_AFTER_S,
                          STEP_S)  # fmt: skip
    return {
        "gap_ms": samples.longest_own_gap(start, end, stood) * 1e3,
        "gap_with_stalls_ms": samples.longest_gap(start, end) * 1e3,
        "stalls_ms": [(b - a) * 1e3 for a, b in stood if b > start and a < end],
        "gap_before_ms": samples.longest_gap(
            start - LOOKED_AT_S, start - TICK_S
        ) * 1e3,
        "finished_s": end - start,
        "synced_s": synced - start,
        "cpu_s": done.cpu_s,
        "image_bytes": allocated(image),
        "rate_before": before,
        "rate_during": during,
        "rates": [[round(t, 3), round(rate)] for t, rate in rates],
    }  # fmt: skip


def trial(tool, programs, mib, huge, where, judged):
    """`programs`: of the victim and of who watches the machine.  Returns the record that goes into the JSON file."""
    directory = Path(tempfile.mkdtemp(prefix="snapuffd-bench-", dir=where))
    image = directory / "image"
    record = {"status": "failed", "why": None, "judged": False}
    os.sync()
    try:
        program, watcher = programs
        with (
            Victim(program, mib, huge, directory) as victim,
            Stalls(watcher) as stalls,
        ):
            victim.wait_ready()
            huge_before = victim.huge_kib()
            record["other_cpu_share"] = _rest_of_the_cpus(victim.pid)
            argv = tool.argv(tool.program, victim.pid, image)
            done = _run(argv, directory)
            if not done.code and image.exists():
                _sync(image)
            synced = time.monotonic()
            time.sleep(AFTER_S)
            huge_after = victim.huge_kib()
            samples, stood = victim.stop(), stalls.stop()
            if done.code:
                record["status"] = "refused" if done.code == 3 else "failed"
                record["why"] = (_last_line(done.err)
                                 or f"exit code {done.code}")  # fmt: skip
                return record
            record |= _figures(done, samples, stood, synced, image)
            record |= {"huge_before_kib": huge_before,
                       "huge_after_kib": huge_after}  # fmt: skip
            if tool.argv is _snapuffd_argv:
                record["report"] = json.loads(done.out)
            if judged:
                record["why"] = _judge(tool, program, image, directory, victim)
                record["judged"] = tool.core is not None
            if not record["why"]:
                record["status"] = "complete"
    except RuntimeError as error:  # the victim, the watcher
        record["why"] = str(error)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return record


def of(results, method, mib=None, huge=None):
    """Runs that came to an end."""
    return [
        r for r in results["runs"]
        if r["method"] == method and r["status"] == "complete"
        and mib in (None, r["mib"]) and huge in (None, r["huge"])
    ]  # fmt: skip


def figure(results, method, mib, huge, value):
    """The median of value(run), None where there is no run."""
    values = [value(r) for r in of(results, method, mib, huge)]
    return median(values) if values and None not in values else None
