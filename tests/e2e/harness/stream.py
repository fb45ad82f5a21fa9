# SPDX-License-Identifier: GPL-2.0-or-later
"""The RAM of a classic migration stream, to be read and tampered with.

Only what comes before the devices is understood: header, configuration, and
the sections of "ram" (migration/savevm.c, migration/ram.c of QEMU).
"""

import struct

PAGE_LEN = 4096

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
