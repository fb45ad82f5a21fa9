# SPDX-License-Identifier: GPL-2.0-or-later
"""The guests that are snapshotted, and what they do meanwhile."""

from dataclasses import dataclass
from pathlib import Path

from harness import bootsect
from harness.guest import Guest, GuestSpec

from . import series

NEVER_MS = 10**9  # full checks of all memory would be gaps in the writes
GIB = 1024


@dataclass(frozen=True)
class Workload:
    """`methods`: which of them make sense, None for all.  `skip`: why it can't
    be run here at all, asked when it is about to be."""

    name: str
    what: str
    spec: GuestSpec
    guest: type = Guest
    parse: object = series.parse_judge  # of its serial lines
    methods: tuple | None = None
    skip: object = None

    def why_skipped(self):
        return self.skip() if self.skip else None

    def boot(self):
        return self.guest(self.spec)


def _available_mib():
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    return 0


def _size(mib):
    return f"{mib // GIB} GiB" if mib % GIB == 0 else f"{mib} MiB"


def _judge(mib, **options):
    return {"mib": mib, "live": 1, "check_ms": NEVER_MS, **options}


def all_workloads(memory_mib):
    """All of them, by name, for guests of so much memory."""
    half = memory_mib // 2
    base = GuestSpec(mem_mib=memory_mib, judge=_judge(half))
    sparse_mib = memory_mib * (8 if _available_mib() > 10 * memory_mib else 4)
    sparse_used = memory_mib // 4
    of = f"{_size(half)} of a {_size(memory_mib)} guest"

    def flat(name, mem_mib):
        return Workload(
            name,
            f"random writes to {_size(mem_mib // 2)} of a {_size(mem_mib)} "
            "guest on a shared memfd",
            base.replace(mem_mib=mem_mib, ram="memfd",
                         judge=_judge(mem_mib // 2)),
            methods=("snapuffd",),
        )  # fmt: skip

    found = [
        Workload("random", f"random writes to {of}, flat out", base),
        Workload("sequential", f"sequential writes to {of}, flat out",
                 base.replace(judge=_judge(half, mode="seq"))),
        Workload("paced", f"1,000 random writes a second to {of}",
                 base.replace(judge=_judge(half, rate=1000))),
        Workload("idle", f"no writes; {of} in use",
                 base.replace(judge=_judge(half, mode="idle"))),
        Workload("sparse", f"random writes to {_size(sparse_used)} of a "
                 f"{_size(sparse_mib)} guest that uses little else",
                 base.replace(mem_mib=sparse_mib, judge=_judge(sparse_used))),
        Workload("memfd", f"random writes to {of} on a shared memfd",
                 base.replace(ram="memfd")),
        Workload("kvm", "a boot sector under KVM: scattered writes to "
                 f"{_size(half // 2)} of a {_size(half)} guest, flat out",
                 bootsect.spec(half), guest=bootsect.BootSector,
                 parse=series.parse_bootsect,
                 skip=bootsect.why_no_kvm),
        flat("memfd-small", half),
        flat("memfd-large", half * 8),
    ]  # fmt: skip
    return {w.name: w for w in found}
