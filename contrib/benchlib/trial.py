# SPDX-License-Identifier: GPL-2.0-or-later
"""One fresh guest, one method, and all that was to be seen of it."""

import math
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from . import methods
from .observe import Monitor, SerialLines, cpu_of, cpu_of_host, memory_of
from .series import Writes, place, quantile_ns

REST_S = 0.5  # after our own look at the guest, which disturbs it


@dataclass(frozen=True)
class Timing:
    warm_min_s: float = 5
    warm_max_s: float = 25
    before_s: float = 3  # looked at for the undisturbed rate
    after_s: float = 6  # watched when all is done
    settle_s: float = 1  # of these not counted into the rate after


def _warm_up(serial, parse, timing, writes_expected):
    """Until the writes are steady, or for as long as we have patience."""
    start = time.time()
    while True:
        time.sleep(0.2)
        spent = time.time() - start
        if spent < timing.warm_min_s:
            continue
        steady = Writes(place(serial.lines, parse=parse)).steady()
        if steady or not writes_expected:
            return True
        if spent > timing.warm_max_s:
            return False


def _figures(outcome, writes, timing, pauses):
    """Of the guest's writes."""
    start = outcome.started
    complete = outcome.complete
    captured = outcome.captured or complete
    before = (start - timing.before_s, start)
    after = (complete + timing.settle_s, writes.buckets[-1].end)
    frozen = pauses[0][0] if pauses else start
    held_up = writes.histogram(frozen, captured)
    # Whole seconds, for a part of one would hide how short the trouble was.
    seconds = max(1, math.ceil(captured - frozen))
    affected = writes.histogram(frozen, frozen + seconds)
    between_events = sum(b - a for a, b in pauses) * 1e3
    plain = writes.histogram(*before)
    return {
        "pause_ms": max(between_events, outcome.report.get("pause_ms", 0)),
        "pause_by_events_ms": between_events,
        "captured_s": outcome.captured and outcome.captured - start,
        "frozen_s": frozen - start if pauses else None,
        "complete_s": complete - start,
        "image_bytes": outcome.size,
        "rate_before": writes.rate(*before),
        "rate_during": writes.rate(start, captured),
        "rate_after": writes.rate(*after) if after[1] > after[0] else None,
        "worst_second": writes.worst_second(start, complete),
        "p50_before_us": _us(quantile_ns(plain, 0.5)),
        "p99_before_us": _us(quantile_ns(plain, 0.99)),
        "affected_s": seconds,
        "p50_us": _us(quantile_ns(affected, 0.5)),
        "p99_us": _us(quantile_ns(affected, 0.99)),
        "p99_held_up_us": _us(quantile_ns(held_up, 0.99)),
        "p99_until_complete_us": _us(
            quantile_ns(writes.histogram(start, complete), 0.99)
        ),
        "worst_before_us": _us(writes.worst_ns(*before)),
        "worst_us": _us(writes.worst_ns(start, captured)),
        "worst_until_complete_us": _us(writes.worst_ns(start, complete)),
    }


def _us(ns):
    return None if ns is None else ns / 1e3


def run(setup, workload, method, where, timing):
    """Returns the record of the run that goes into the JSON file."""
    directory = Path(tempfile.mkdtemp(prefix="snapuffd-bench-", dir=where))
    record = {"workload": workload.name, "method": method}
    parse = workload.parse
    writes_expected = workload.spec.judge.get("mode") != "idle"
    os.sync()
    try:
        with workload.boot() as guest:
            guest.wait_ready(timeout=300)
            monitor = Monitor(guest.monitor_path)
            serial = SerialLines(guest.serial_path)
            record["steady"] = _warm_up(serial, parse, timing,
                                        writes_expected)  # fmt: skip
            pid = guest.pid
            memory = memory_of(pid)
            cpu, host_cpu = cpu_of(pid), cpu_of_host()
            time.sleep(REST_S)

            outcome = methods.METHODS[method](setup, guest, monitor, directory)
            ended = time.time()
            qemu_cpu = cpu_of(pid) - cpu
            other_cpu = (cpu_of_host() - host_cpu - qemu_cpu
                         - (outcome.cpu_s or 0))  # fmt: skip
            record |= {
                "status": outcome.status,
                "why": outcome.why,
                "started": outcome.started,
                "own_cpu_s": outcome.cpu_s,
                "qemu_cpu_s": qemu_cpu,
                "other_cpu_share": max(0.0, other_cpu)
                / (ended - outcome.started + REST_S) / os.cpu_count(),
                "report": outcome.report,
            }  # fmt: skip
            if outcome.complete:
                time.sleep(timing.after_s)
                after = memory_of(pid)
                pauses = monitor.pauses(outcome.started)
                resumes = [resume for _, resume in pauses]
                serial.close()
                buckets = place(serial.lines, resumes, parse)
                if any(b.bad for b in buckets):
                    raise AssertionError("the guest found its memory torn")
                writes = Writes(buckets)
                record |= _figures(outcome, writes, timing, pauses)
                record |= {
                    "pauses": [[a - outcome.started, b - outcome.started]
                               for a, b in pauses],
                    "huge_before_kib": memory.huge_kib,
                    "huge_after_kib": after.huge_kib,
                    "rss_growth_kib": after.rss_kib - memory.rss_kib,
                    "buckets": [
                        b.as_list(outcome.started)
                        for b in writes.between(
                            outcome.started - timing.before_s, float("inf")
                        )
                    ],
                }  # fmt: skip
            monitor.close()
        if outcome.status == "complete":
            methods.check_image(setup, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return record
