# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that is plugged in, or taken away, while the rest is captured: a
virtio-mem device that shrinks, a DIMM that comes. The snapshot is right, or the
dump ends with exit code 4; what comes after the instant is no part of it."""

import json

import pytest
from harness import cli
from harness.guest import GuestSpec, assert_same_instant
from test_discards import MIB, SlowDump

EXTRA_MIB = 128
# What the judge has must find room in it.
VMEM_BASE_MIB = 192
SPEC = GuestSpec(
    modules=("virtio_pci", "virtio_mem"),
    append="memhp_default_state=online_movable swiotlb=2048",
    judge={"mib": 32, "rate": 200},
)
SLOTS = ("-m", "slots=2,maxmem=1G")


def backend(ram, name):
    kind = {"anon": "memory-backend-ram", "memfd": "memory-backend-memfd"}[ram]
    return {"qom_type": kind, "id": name, "size": EXTRA_MIB * MIB,
            "share": ram == "memfd"}  # fmt: skip


def guest_bytes(guest):
    """What QEMU says that the guest has of more memory."""
    with guest.qmp() as qmp:
        devices = qmp.command("query-memory-devices")
    return sum(device["data"]["size"] for device in devices)


def finish(guests, source, dump, out, may_be_lost, spec=None):
    code, text, err = dump.wait()
    source.wait_checks(1)
    if code == cli.INCONSISTENT and may_be_lost:
        assert "the snapshot is discarded" in err
        assert not out.exists()
        return None
    assert code == cli.DONE, err
    command = f"exec:{cli.program()} convert {out} --to qemu --out -"
    restored = guests.restore(source, command, spec=spec)
    assert_same_instant(source, restored, checks=1)
    restored.close()
    return json.loads(text)


def vmem_spec(ram):
    share = "on" if ram == "memfd" else "off"
    kind = backend(ram, "")["qom_type"]
    return SPEC.replace(
        ram="anon4k" if ram == "anon" else ram,
        mem_mib=VMEM_BASE_MIB,
        judge={"mib": 64, "rate": 200},
        # The judge's memory comes from what is movable first.
        append=f"{SPEC.append} guest.memory={VMEM_BASE_MIB + EXTRA_MIB // 2}",
        extra=(
            *SLOTS,
            "-object", f"{kind},id=vmem,size={EXTRA_MIB}M,share={share}",
            "-device", "virtio-mem-pci,id=vmem0,memdev=vmem,"
            f"requested-size={EXTRA_MIB}M",
        ),
    )  # fmt: skip


@pytest.mark.parametrize("ram", ["anon", "memfd"])
def test_virtio_mem_shrinks(guests, out, ram):
    """On a busy machine the dump may be over before the guest has begun.  It
    may also be discarded: where it is not, it is right."""
    source = guests.start(vmem_spec(ram))
    source.wait("memory of virtio-mem",
                lambda: guest_bytes(source) == EXTRA_MIB * MIB)
    source.wait_checks(1)
    with SlowDump(source, out, rate=8) as dump:
        with source.qmp() as qmp:
            qmp.command("qom-set", path="/machine/peripheral/vmem0",
                        property="requested-size", value=0)  # fmt: skip
        source.wait("memory given back", lambda: guest_bytes(source) <
                    EXTRA_MIB * MIB or dump.is_over())
        finish(guests, source, dump, out, may_be_lost=True)


@pytest.mark.parametrize("ram", ["anon", "memfd"])
def test_a_dimm_comes(guests, out, ram):
    """On a busy machine it may come after the dump."""
    source = guests.start(SPEC.replace(ram=ram, extra=SLOTS))
    source.wait_checks(1)
    with SlowDump(source, out, rate=6) as dump:
        with source.qmp() as qmp:
            qmp.command("object-add", **backend(ram, "late"))
            qmp.command("device_add", driver="pc-dimm", id="late0",
                        memdev="late")  # fmt: skip
        figures = finish(guests, source, dump, out, may_be_lost=False)
    assert figures["pages"]["total"] * 4096 < (SPEC.mem_mib + 64) * MIB
