# SPDX-License-Identifier: GPL-2.0-or-later
"""A running guest, watched from outside.  All times are time.time() seconds,
for that is what QEMU stamps its events with."""

import json
import os
import queue
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from harness.qmp import Qmp, QmpError

POLL_S = 0.005


@dataclass(frozen=True)
class Event:
    name: str
    time: float
    data: dict


class Monitor(Qmp):
    """A monitor that is held for the whole run and keeps the events."""

    def __init__(self, path):
        self.events = []
        self._replies = None
        super().__init__(path)
        self._replies = queue.Queue()
        self._sock.settimeout(None)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        try:
            while line := self._file.readline():
                message = json.loads(line)
                if "event" in message:
                    stamp = message["timestamp"]
                    when = stamp["seconds"] + stamp["microseconds"] / 1e6
                    self.events.append(
                        Event(message["event"], when, message.get("data", {}))
                    )
                else:
                    self._replies.put(message)
        except (OSError, ValueError):
            pass  # closed
        self._replies.put({"error": {"desc": "monitor closed"}})

    def _read(self):
        return self._replies.get() if self._replies else super()._read()

    def close(self):
        self._sock.shutdown(2)
        super().close()

    def of(self, name, since=0.0):
        return [e for e in self.events if e.name == name and e.time >= since]

    def wait_migration(self, since, states, timeout):
        """The first MIGRATION event of one of `states`, None if it does not
        come in time."""
        deadline = time.time() + timeout
        while True:
            for event in self.of("MIGRATION", since):
                if event.data["status"] in states:
                    return event
            if time.time() > deadline:
                return None
            time.sleep(POLL_S)

    def pauses(self, since):
        """[(STOP, RESUME)] of times when the guest stood."""
        found, stopped = [], None
        for event in self.events:
            if event.time < since:
                continue
            if event.name == "STOP" and stopped is None:
                stopped = event.time
            elif event.name == "RESUME" and stopped is not None:
                found.append((stopped, event.time))
                stopped = None
        return found


class SerialLines:
    """The guest's serial lines and when each arrived."""

    def __init__(self, path):
        self.lines = []  # (time, text)
        self._file = open(path, "rb")
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self):
        rest = b""
        while not self._end.wait(POLL_S):
            data = self._file.read()
            now = time.time()
            *whole, rest = (rest + data).split(b"\n")
            for line in whole:
                text = line.decode(errors="replace").rstrip("\r")
                self.lines.append((now, text))

    def close(self):
        self._end.set()
        self._thread.join()
        self._file.close()


@dataclass(frozen=True)
class Memory:
    rss_kib: int
    huge_kib: int


def memory_of(pid):
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()

    def kib(pattern):
        return sum(map(int, re.findall(pattern, text, re.M)))

    return Memory(
        kib(r"^Rss:\s+(\d+) kB"),
        kib(r"^(?:AnonHugePages|ShmemPmdMapped|FilePmdMapped):\s+(\d+) kB"),
    )


def cpu_of(pid):
    """CPU seconds that a process has used, all of its threads, and what its
    children had when they ended: cat, for a migration."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def cpu_of_host():
    """CPU seconds that anybody has used, stolen time included."""
    user, nice, system, _, _, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9]
    )
    busy = user + nice + system + irq + softirq + steal
    return busy / os.sysconf("SC_CLK_TCK")


__all__ = ["Event", "Memory", "Monitor", "QmpError", "SerialLines",
           "cpu_of", "cpu_of_host", "memory_of"]  # fmt: skip
