# SPDX-License-Identifier: GPL-2.0-or-later
"""The ways to take a snapshot that are compared.

Each is a function of (setup, guest, monitor, directory) that returns an Outcome
when the image is complete and synced, and the guest runs.
"""

import json
import os
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from .observe import QmpError

UNLIMITED = 1 << 36  # bytes/s; more than memory has
PATIENCE_S = 300


@dataclass(frozen=True)
class Setup:
    program: str  # snapuffd
    bound_s: float  # after which a migration that does not end is cancelled


@dataclass
class Outcome:
    status: str  # complete, cut (by the bound), refused, failed
    started: float
    captured: float | None = None
    complete: float | None = None
    size: int = 0  # allocated bytes
    cpu_s: float | None = None  # of the program, beside QEMU
    why: str | None = None
    report: dict = field(default_factory=dict)  # the program's own figures


def allocated(path):
    files = path.iterdir() if path.is_dir() else [path]
    return sum(f.stat().st_blocks * 512 for f in files)


def _sync(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def _migrate(setup, monitor, directory, capabilities=(), stopped=False):
    """QEMU's stream into a file, until it is there as a whole."""
    path, done = directory / "stream", directory / "stream.done"
    monitor.command(
        "migrate-set-capabilities",
        capabilities=[{"capability": name, "state": True}
                      for name in ("events", *capabilities)],
    )  # fmt: skip
    monitor.command("migrate-set-parameters", max_bandwidth=UNLIMITED)

    started = time.time()
    if stopped:
        monitor.command("stop")
    monitor.command("migrate", uri=f"exec:cat > '{path}' && : > '{done}'")
    bound = PATIENCE_S if stopped or capabilities else setup.bound_s
    end = monitor.wait_migration(started, ("completed", "failed"), bound)
    if end is None:
        monitor.command("migrate_cancel")
        monitor.wait_migration(started, ("cancelled",), 60)
        return Outcome("cut", started, complete=time.time(),
                       size=allocated(path),
                       why=f"does not end, cancelled after {bound:.0f} s")
    if end.data["status"] == "failed":
        info = monitor.command("query-migrate")
        return Outcome("failed", started, why=info.get("error-desc", "failed"))
    if monitor.command("query-status")["status"] != "running":
        monitor.command("cont")
    deadline = time.time() + 60
    while not done.exists():
        if time.time() > deadline:
            return Outcome("failed", started, why="the stream is cut short")
        time.sleep(0.002)
    _sync(path)
    return Outcome("complete", started, captured=end.time,
                   complete=time.time(), size=allocated(path))


def migrate(setup, _guest, monitor, directory):
    return _migrate(setup, monitor, directory)


def stop_migrate(setup, _guest, monitor, directory):
    return _migrate(setup, monitor, directory, stopped=True)


def background_snapshot(setup, _guest, monitor, directory):
    started = time.time()
    try:
        return _migrate(setup, monitor, directory, ("background-snapshot",))
    except QmpError as error:
        return Outcome("refused", started, why=str(error))


def snapuffd(setup, guest, monitor, directory):
    out, stderr = directory / "image", directory / "stderr"
    argv = [setup.program, "dump", "--pid", str(guest.pid), "--out", str(out),
            "--json"]  # fmt: skip
    started = time.time()
    with open(stderr, "wb") as err:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=err)
    with process.stdout:
        text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    complete = time.time()
    process.returncode = os.waitstatus_to_exitcode(status)
    cpu_s = usage.ru_utime + usage.ru_stime
    if process.returncode:
        status = "refused" if process.returncode == 3 else "failed"
        return Outcome(status, started, cpu_s=cpu_s,
                       why=Path(stderr).read_text(errors="replace").strip())

    report = json.loads(text)
    # captured_ms counts from the thaw, which is when QEMU said RESUME.
    resumes = monitor.of("RESUME", started)
    captured = None
    if resumes:
        captured = resumes[0].time + report["captured_ms"] / 1e3
    return Outcome("complete", started, captured, complete, allocated(out),
                   cpu_s, report=report)


def check_image(setup, directory):
    """Reads the image back; not part of what is timed."""
    image = directory / "image"
    if image.exists():
        subprocess.run([setup.program, "verify", str(image)], check=True,
                       capture_output=True)  # fmt: skip


METHODS = {
    "migrate": migrate,
    "stop-migrate": stop_migrate,
    "background-snapshot": background_snapshot,
    "snapuffd": snapuffd,
}
REFERENCE = "background-snapshot"
OURS = "snapuffd"
