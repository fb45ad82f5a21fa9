# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory of each kind in the victim (tests/e2e/victim/memory.c), and which of
it a core has."""

from . import victim
from .core import Core
from .process import PAGE

#: Bits of coredump_filter.
ANON, ANON_SHARED, FILE, FILE_SHARED = 1, 2, 4, 8
HUGE, HUGE_SHARED = 0x20, 0x40
DEFAULT = 0x33
#: Of each block, with which bits it is in a core.
BLOCKS = {
    "anon": ANON,
    "anon-shared": ANON_SHARED,
    "dontdump": 0,
    "file-private": FILE,
    "file-shared": FILE_SHARED,
    "file-written": ANON | FILE,
    "none-anon": ANON,
    "none-shared": ANON_SHARED,
    "none-file": ANON | FILE,
}
#: What "huge-memory" has in addition.
HUGE_BLOCKS = {
    "huge-private": HUGE,
    "huge-shared": HUGE_SHARED,
    "huge-dontdump": 0,
    "huge-none": HUGE,
}


def texts(name, n_pages):
    """What the pages of a block begin with."""
    if name in ("file-private", "file-shared"):
        return [f"file {i}" for i in range(n_pages)]
    found = [f"{name} {i}" for i in range(n_pages)]
    if name in ("file-written", "none-file"):
        found[0] = "file 0"
    return found


def _read_texts(core, at, n_pages):
    """None: the core says that it has not got them."""
    try:
        data = core.read(at, n_pages * PAGE)
    except LookupError:
        return None
    return [page.rstrip(b"\0").decode() for page in victim.pages(data)]


def where(target):
    """Of each block (address, number of pages)."""
    rows = victim.rows(target.command("memory"))
    assert rows.keys() in (BLOCKS.keys(), BLOCKS.keys() | HUGE_BLOCKS.keys())
    return {name: (row["at"], row["n_pages"]) for name, (_, row) in rows.items()}


def held(blocks, core):
    """Which of `blocks`, of where(), the core has; what it has is right."""
    core = Core(core)
    found = set()
    for name, (at, n_pages) in blocks.items():
        got = _read_texts(core, at, n_pages)
        if got is not None:
            assert got == texts(name, n_pages), name
            found.add(name)
    return found
