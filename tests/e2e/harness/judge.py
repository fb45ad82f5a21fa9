# SPDX-License-Identifier: GPL-2.0-or-later
"""What the judge in the guest (tests/guest/judge.c) prints, line by line."""

import re
from dataclasses import dataclass

# The words of a page that carry its step, as judge.c stamps them.
STAMP_FACTOR = 0x9E3779B97F4A7C15
PAGE_LEN = 4096

_VERDICT = re.compile(
    r"^judge: seq=(?P<seq>\d+) writes=(?P<writes>\d+) rate=(?P<rate>\d+)/s "
    r"p50=(?P<p50>[\d.]+)us p99=(?P<p99>[\d.]+)us p999=(?P<p999>[\d.]+)us "
    r"max=(?P<max>[\d.]+)us check=(?:(?P<clean>clean)|TORN page=(?P<page>\d+) "
    r"want=(?P<want>\d+) got=(?P<got>\d+) bad=(?P<bad>\d+))$"
)
_READY = re.compile(r"^judge: ready pages=(\d+) mode=(\w+)$")
_BUCKET = re.compile(
    r"^judge-bucket: t=(\d+) writes=(\d+) "
    r"p50=([\d.]+) p99=([\d.]+) max=([\d.]+)$"
)


@dataclass(frozen=True)
class Verdict:
    """One full check.  page, want, got are of the first bad page ever."""

    seq: int
    writes: int
    rate: int
    p50_us: float
    p99_us: float
    p999_us: float
    max_us: float
    clean: bool
    page: int | None = None
    want: int | None = None
    got: int | None = None
    bad: int = 0


@dataclass(frozen=True)
class Bucket:
    t_ms: int
    writes: int
    p50_us: float
    p99_us: float
    max_us: float


def _lines(text):
    """Whole lines only: the last one may still be on its way."""
    return [line.rstrip("\r") for line in text.split("\n")[:-1]]


def ready_pages(text):
    """Number of pages that are judged, None before the judge is ready."""
    for line in _lines(text):
        match = _READY.match(line)
        if match:
            return int(match[1])
    return None


def verdicts(text):
    found = []
    for line in _lines(text):
        match = _VERDICT.match(line)
        if not match:
            continue
        field = match.groupdict()
        torn = {}
        if not field["clean"]:
            torn = {k: int(field[k]) for k in ("page", "want", "got", "bad")}
        found.append(
            Verdict(
                seq=int(field["seq"]),
                writes=int(field["writes"]),
                rate=int(field["rate"]),
                p50_us=float(field["p50"]),
                p99_us=float(field["p99"]),
                p999_us=float(field["p999"]),
                max_us=float(field["max"]),
                clean=field["clean"] is not None,
                **torn,
            )
        )
    return found


def buckets(text):
    return [
        Bucket(int(m[1]), int(m[2]), float(m[3]), float(m[4]), float(m[5]))
        for m in map(_BUCKET.match, _lines(text))
        if m
    ]


def page_step(page):
    """The step that a page of guest memory carries, None if it's no page of
    the judge's."""
    middle = PAGE_LEN // 2
    first = int.from_bytes(page[:8], "little")
    if int.from_bytes(page[-8:], "little") != first ^ (2**64 - 1):
        return None
    stamp = int.from_bytes(page[middle : middle + 8], "little")
    return first if stamp == first * STAMP_FACTOR % 2**64 else None
