# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernels of older Debian releases, in a guest under TCG: what is missing
there has something in its place, or the dump is refused with the reason."""

import re
import shutil
from pathlib import Path

import pytest
from harness import cli, host, other_kernel
from harness.guest import GuestError

#: Of the engine: they find what this kernel has by themselves.  Not "discard",
#: which is given up more often than it allows where a processor is slow.
UNIT_TESTS = ("capture", "spaces")
SECONDS = 600  # the machine may be busy: a minute is enough for a quiet one


@pytest.fixture(scope="module")
def disk(victim_exe, tmp_path_factory):
    host.require_root()
    if b"__asan_init" in Path(cli.program()).read_bytes():
        pytest.skip("with sanitizers it is too slow for a guest under TCG")
    for tool in ("qemu-system-x86_64", "gdb", "mkfs.ext4", "debugfs"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")
    place = tmp_path_factory.mktemp("disk")
    other_kernel.make_disk(place / "disk", place, victim_exe, unit_tests())
    yield place / "disk"
    (place / "disk").unlink()


def unit_tests():
    """Where they have been built beside the program."""
    place = Path(cli.program()).parents[1] / "tests" / "unit"
    return [path for name in UNIT_TESTS
            if (path := place / f"test-{name}").exists()]  # fmt: skip


def run_on(suite, disk, place, *commands):
    try:
        kernel = other_kernel.fetch(suite)
    except GuestError as error:
        pytest.skip(f"no kernel of {suite}: {error}")
    text = other_kernel.run(kernel, disk, place, commands, SECONDS)
    print(text)
    return text


def test_6_1(disk, tmp_path):
    """Without markers, without PAGEMAP_SCAN, a call for each mapping."""
    units = [path.name for path in unit_tests()]
    text = run_on(
        "bookworm", disk, tmp_path,
        *(f"/bin/busybox time {other_kernel.PLACE}/{name}; "
          f"echo unit {name} $?" for name in units),
        "$SNAPUFFD check",
        "python3 -m pytest -v -rs --tb=short --color=no -p no:cacheprovider "
        "test_any_kernel.py",
    )  # fmt: skip
    assert re.search(r"^kernel 6\.1\.", text, re.M)
    for missing in ("unpopulated", "many mappings"):
        assert re.search(rf"^  userfaultfd write-protect, {missing} +no ",
                         text, re.M)  # fmt: skip
    for name in units:
        assert f"\nunit {name} 0\n" in text
    results = re.findall(r"^test_any_kernel.py::(\S+) +([A-Z]+)", text, re.M)
    assert len(results) > 5
    assert {word for _, word in results} == {"PASSED"}, results
    assert re.search(rf"^=+ {len(results)} passed in ", text, re.M)


def test_5_10_is_refused(disk, tmp_path):
    """Before anything is touched: it does not show what it protects."""
    text = run_on(
        "bullseye", disk, tmp_path,
        "sleep 1000 & pid=$!",
        "$SNAPUFFD check; echo checked $?",
        "$SNAPUFFD dump --pid $pid --out /root/image; echo dumped $?",
        "echo left /root/*",
        "kill $pid && echo killed",
    )  # fmt: skip
    assert re.search(r"^kernel 5\.10\.", text, re.M)
    assert re.search(r"^  userfaultfd write-protect, pagemap +MISSING ", text,
                     re.M)  # fmt: skip
    assert "\nchecked 3\n" in text
    assert re.search(r"^snapuffd: .*Linux 5\.13 or newer is needed\n"
                     r"dumped 3\nleft /root/\*\nkilled$", text, re.M)  # fmt: skip
