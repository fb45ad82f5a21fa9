# SPDX-License-Identifier: GPL-2.0-or-later
"""From the guest's serial lines to its writes in host time.

The guest's clock stands while the VM does, and lines arrive late when QEMU's
main loop is busy.  So a bucket keeps the guest's times, and is put into host
time by the quickest line around it: arrival - guest time is the clocks'
difference plus a delay, whose minimum is close to nothing.  The difference
changes when the guest is resumed, so lines on both sides of that are not mixed.
"""

import bisect
import re
from dataclasses import dataclass, field

from harness import bootsect

_LIVE = re.compile(
    r"^judge-live: t=([\d.]+) end=([\d.]+) writes=(\d+) bad=(\d+) max=(\d+) "
    r"ns=([\d:,]*)$"
)
_NEIGHBOURS = 20
_SLOT_MIDDLE = 1 + 1 / 16  # of a histogram slot, against its lower end


@dataclass
class Bucket:
    start: float  # s
    end: float
    writes: int
    bad: int
    max_ns: int
    hist: dict = field(default_factory=dict)  # ns: writes

    def as_list(self, zero):
        """For the JSON file."""
        pairs = [[ns, n] for ns, n in sorted(self.hist.items())]
        return [round(self.start - zero, 4), round(self.end - zero, 4),
                self.writes, self.max_ns, pairs]  # fmt: skip


def parse_judge(line):
    """A bucket in guest seconds, None for other lines."""
    match = _LIVE.match(line)
    if not match:
        return None
    hist = {}
    if match[6]:
        for pair in match[6].split(","):
            ns, n = pair.split(":")
            hist[int(ns)] = int(n)
    return Bucket(float(match[1]) / 1e3, float(match[2]) / 1e3, int(match[3]),
                  int(match[4]), int(match[5]), hist)  # fmt: skip


def parse_bootsect(line):
    """The same of the boot sector, whose clock is the host's TSC."""
    seen = bootsect.parse(line, bootsect.tsc_hz())
    if not seen:
        return None
    return Bucket(seen.start, seen.end, sum(seen.hist.values()), seen.bad,
                  seen.max_ns, seen.hist)  # fmt: skip


def place(lines, resumes=(), parse=parse_judge):
    """Buckets in host seconds, of (arrival, text) lines and the times at which
    the guest was resumed."""
    seen = [(arrival, b) for arrival, text in lines if (b := parse(text))]
    epochs = [bisect.bisect_right(resumes, arrival) for arrival, _ in seen]
    delays = [arrival - b.end for arrival, b in seen]
    found = []
    for i, (_, b) in enumerate(seen):
        around = range(max(0, i - _NEIGHBOURS),
                       min(len(seen), i + _NEIGHBOURS + 1))  # fmt: skip
        offset = min(delays[k] for k in around if epochs[k] == epochs[i])
        end = b.end + offset
        start = b.start + offset
        if found and (start < found[-1].end or epochs[i] != epochs[i - 1]):
            start = found[-1].end
        found.append(Bucket(min(start, end), end, b.writes, b.bad, b.max_ns,
                            b.hist))  # fmt: skip
    return found


class Writes:
    """Figures of a list of buckets in host time."""

    def __init__(self, buckets):
        self.buckets = buckets
        self._times, self._sums, total = [], [], 0
        for b in buckets:
            self._times += [b.start, b.end]
            self._sums += [total, total + b.writes]
            total += b.writes

    def _until(self, t):
        """Writes before t; within a bucket they are taken to be even."""
        i = bisect.bisect_left(self._times, t)
        if i == 0:
            return 0
        if i == len(self._times):
            return self._sums[-1]
        t0, t1 = self._times[i - 1], self._times[i]
        n0, n1 = self._sums[i - 1], self._sums[i]
        return n0 + (n1 - n0) * ((t - t0) / (t1 - t0) if t1 > t0 else 1)

    def rate(self, start, end):
        return (self._until(end) - self._until(start)) / (end - start)

    def worst_second(self, start, end):
        """The fewest writes in any 1 s that begins between start and end."""
        last = max(start, min(end, self._times[-1] - 1))
        begins = [start, last, *(t for edge in self._times
                                 for t in (edge, edge - 1)
                                 if start <= t <= last)]  # fmt: skip
        return min(self._until(t + 1) - self._until(t) for t in begins)

    def between(self, start, end):
        return [b for b in self.buckets if b.end > start and b.start < end]

    def histogram(self, start, end):
        merged = {}
        for b in self.between(start, end):
            for ns, n in b.hist.items():
                merged[ns] = merged.get(ns, 0) + n
        return merged

    def worst_ns(self, start, end):
        return max((b.max_ns for b in self.between(start, end) if b.writes),
                   default=None)  # fmt: skip

    def steady(self, n=10, tolerance=0.1):
        """Whether the last n buckets are as the n before."""
        if len(self.buckets) < 2 * n:
            return False
        old, new = (
            sum(b.writes for b in part)
            for part in (self.buckets[-2 * n : -n], self.buckets[-n:])
        )
        return abs(new - old) <= tolerance * max(old, new)


def quantile_ns(histogram, q):
    """Weighed by writes; good to 6 %."""
    rank, seen = q * sum(histogram.values()), 0
    for ns, n in sorted(histogram.items()):
        seen += n
        if seen > rank:
            return ns * _SLOT_MIDDLE
    return None
