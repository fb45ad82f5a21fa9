# SPDX-License-Identifier: GPL-2.0-or-later
"""The RAM of a classic migration stream, to be read and tampered with.

Only what comes before the devices is understood: header, configuration, and
the sections of "ram" (migration/savevm.c, migration/ram.c of QEMU).
"""

import struct

from . import judge

PAGE_LEN = judge.PAGE_LEN

_START, _PART, _END, _FULL, _CONFIGURATION, _FOOTER = 1, 2, 3, 4, 7, 0x7E
_ZERO, _MEM_SIZE, _PAGE, _EOS, _CONTINUE = 2, 4, 8, 0x10, 0x20


def ram_pages(stream):
    """{(block, offset in the block): position in the stream} of every page
    that the stream holds as data."""
    at = 0

    def take(form):
        nonlocal at
        values = struct.unpack_from(">" + form, stream, at)
        at += struct.calcsize(">" + form)
        return values[0] if len(values) == 1 else values

    def take_name():
        nonlocal at
        length = take("B")
        at += length
        return bytes(stream[at - length : at]).decode()

    assert take("II") == (0x5145564D, 3), "no migration stream"
    pages = {}
    block = None
    while True:
        kind = take("B")
        if kind == _CONFIGURATION:
            length = take("I")
            at += length
            continue
        if kind not in (_START, _PART, _END):
            return pages  # devices begin
        section = take("I")
        if kind == _START:
            name = take_name()
            assert name == "ram", f"section {name} is not understood"
            take("II")
        while True:
            word = take("Q")
            flags, offset = word & (PAGE_LEN - 1), word & -PAGE_LEN
            if flags & _EOS:
                break
            if flags & _MEM_SIZE:
                left = offset
                while left:
                    take_name()
                    left -= take("Q")
                continue
            if not flags & _CONTINUE:
                block = take_name()
            if flags & _PAGE:
                pages[block, offset] = at
                at += PAGE_LEN
            elif flags & _ZERO:
                take("B")
            else:
                raise AssertionError(f"record flags {flags:#x} at {at}")
        assert take("B") == _FOOTER and take("I") == section, "no footer"


def tear(into, donor, pairs):
    """Puts one page of `donor` into the stream `into`: the first of `pairs`,
    positions in both, whose pages are the judge's and of different steps.
    Returns these two steps."""
    for at, donor_at in pairs:
        old = bytes(into[at : at + PAGE_LEN])
        new = bytes(donor[donor_at : donor_at + PAGE_LEN])
        steps = judge.page_step(old), judge.page_step(new)
        if None not in steps and steps[0] != steps[1]:
            into[at : at + PAGE_LEN] = new
            return steps
    raise AssertionError("the streams do not differ in any page of the judge")
