# SPDX-License-Identifier: GPL-2.0-or-later
"""contrib/snapuffd-rotate, which a timer runs: N images of a domain are kept, and
nothing is removed that it did not make, or before there is a newer one."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from harness import cli, host
from harness.libvirt import Daemons, Domain, virsh

CONTRIB = Path(__file__).parents[2] / "contrib"
STAMP = re.compile(r"\d{8}T\d{6}Z")

# Stands in for the program, where what matters is what the script makes of it.
FAKE = """#!/bin/bash
for arg; do case $arg in --out=*) out=${arg#--out=} ;; esac; done
case $1 in
dump)
	[ -z "${FAKE_SAYS-}" ] || echo "$FAKE_SAYS" >&2
	[ -z "${FAKE_SLEEPS-}" ] || { mkdir "$out.partial"; touch "$out.partial/x"; exec sleep "$FAKE_SLEEPS"; }
	[ "${FAKE_DUMP-0}" = 0 ] || exit "$FAKE_DUMP"
	mkdir "$out" && touch "$out/inventory.img" ;;
verify)
	exit "${FAKE_VERIFY-0}" ;;
esac
"""


@pytest.fixture
def fake(tmp_path):
    program = tmp_path / "fake"
    program.write_text(FAKE)
    program.chmod(0o755)
    return program


def command(place, name, *options, keep=2):
    return [CONTRIB / "snapuffd-rotate", "--dir", place, "--keep", str(keep),
            *options[:1], name, *options[1:]]  # fmt: skip


def rotate(program, place, name, *options, keep=2, **env):
    return subprocess.run(
        command(place, name, *options, keep=keep), capture_output=True,
        text=True, timeout=300, env={**os.environ, "SNAPUFFD": program, **env},
    )  # fmt: skip


def images(place, name="vm"):
    return sorted(p.name for p in (place / name).iterdir()
                  if not p.name.startswith("."))  # fmt: skip


def fill(place, n=2, name="vm", year=2020):
    """Images of earlier nights."""
    old = [f"{year}010{i + 1}T000000Z" for i in range(n)]
    (place / name).mkdir(parents=True, mode=0o700)
    for image in old:
        (place / name / image).mkdir()
        (place / name / image / "inventory.img").touch()
    (place / name / ".made").write_text("".join(f"{i}\n" for i in old))
    return old


def test_keeps_n(fake, tmp_path):
    place = tmp_path / "images"
    old = fill(place, 3)
    done = rotate(fake, place, "vm")
    assert done.returncode == 0 and not done.stderr
    left = images(place)
    assert len(left) == 2 and left[0] == old[-1] and STAMP.fullmatch(left[1])
    assert not list((place / "vm").glob(".remove-*"))


def test_the_new_one_stays_whatever_the_clock_says(fake, tmp_path):
    place = tmp_path / "images"
    future = fill(place, 3, year=2090)
    assert rotate(fake, place, "vm").returncode == 0
    left = images(place)
    assert len(left) == 2 and left[0] < "2090" and left[1] == future[-1]


def test_a_torn_list(fake, tmp_path):
    """The end of its last line is missing: the disk was full."""
    place = tmp_path / "images"
    fill(place, 2)
    made = place / "vm" / ".made"
    made.write_text(made.read_text()[:-3])
    assert rotate(fake, place, "vm").returncode == 0
    new = images(place)[-1]
    assert new in made.read_text().splitlines()


def test_environment_is_no_name(fake, tmp_path):
    assert rotate(fake, tmp_path, "vm", decoded="evil").returncode == 0
    assert len(images(tmp_path)) == 1


@pytest.mark.parametrize("option", ["--out=/x", "--ou", "--disks=overlay",
                                    "--disks"])  # fmt: skip
def test_options_that_are_refused(fake, tmp_path, option):
    done = subprocess.run(
        [*command(tmp_path / "images", "vm"), "--", option, "x"],
        env={**os.environ, "SNAPUFFD": str(fake)}, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 2 and option in done.stderr
    assert not (tmp_path / "images").exists()


def test_what_others_made_stays(fake, tmp_path):
    place = tmp_path / "images"
    old = fill(place, 3)
    foreign = ["20190101T000000Z", "mine", "20190101T000000Z.partial"]
    for name in foreign:
        (place / "vm" / name).mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "inventory.img").touch()
    shutil.rmtree(place / "vm" / old[0])
    (place / "vm" / old[0]).symlink_to(elsewhere)
    assert rotate(fake, place, "vm", keep=1).returncode == 0
    assert set(foreign) | {old[0]} < set(images(place))
    assert len(images(place)) == 5
    assert (elsewhere / "inventory.img").exists()


@pytest.mark.parametrize("env, code", [({"FAKE_DUMP": "1"}, 1),
                                       ({"FAKE_DUMP": "4"}, 4),
                                       ({"FAKE_DUMP": "3"}, 3),
                                       ({"FAKE_VERIFY": "1"}, 1)])  # fmt: skip
def test_a_failure_keeps_the_old(fake, tmp_path, env, code):
    place = tmp_path / "images"
    old = fill(place, 3)
    done = rotate(fake, place, "vm", keep=1, **env)
    assert done.returncode == code and "the older ones stay" in done.stderr
    assert images(place) == old


def test_only_its_own_line_says_shut_off(fake, tmp_path):
    says = "snapuffd: domain {}: it is shut off, so there is nothing to dump"
    for who, code in (("vm", 0), ("other", 3)):
        done = rotate(fake, tmp_path / who, "vm", FAKE_DUMP="3",
                      FAKE_SAYS=says.format(who))  # fmt: skip
        assert done.returncode == code and "shut off" in done.stderr


def test_killed_in_the_middle(fake, tmp_path):
    """What was left is removed by the next run, once nobody writes to it."""
    place = tmp_path / "images"
    old = fill(place)
    with subprocess.Popen(
        command(place, "vm"), stderr=subprocess.PIPE,
        env={**os.environ, "SNAPUFFD": str(fake), "FAKE_SLEEPS": "8"},
    ) as first:  # fmt: skip
        host.wait_for(lambda: list((place / "vm").glob("*.partial")))
        first.kill()
        first.wait()
        second = rotate(fake, place, "vm")
        assert second.returncode == 1 and "under way" in second.stderr
    time.sleep(8)
    assert len(images(place)) == 3
    assert rotate(fake, place, "vm").returncode == 0
    assert images(place)[0] == old[1] and len(images(place)) == 2


def test_terminated(fake, tmp_path):
    place = tmp_path / "images"
    old = fill(place)
    with subprocess.Popen(
        command(place, "vm"), stderr=subprocess.PIPE,
        env={**os.environ, "SNAPUFFD": str(fake), "FAKE_SLEEPS": "60"},
    ) as first:  # fmt: skip
        host.wait_for(lambda: list((place / "vm").glob("*.partial")))
        first.send_signal(signal.SIGTERM)
        assert first.wait(timeout=30) == 128 + signal.SIGTERM
    assert images(place)[:2] == old


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\nb", "../x"])
def test_names_that_are_refused(fake, tmp_path, name):
    done = rotate(fake, tmp_path / "images", name)
    assert done.returncode == 2 and not (tmp_path / "images").exists()


@pytest.mark.parametrize(
    "name, escaped",
    [("my-vm", "my-vm"), ("my vm", r"my\x20vm"), ("-x", "-x"),
     ("$(touch x)`;*", r"\x24\x28touch\x20x\x29\x60\x3b\x2a"),
     (r"a\x20b", r"a\x5cx20b")],
)  # fmt: skip
def test_odd_names(fake, tmp_path, name, escaped):
    assert rotate(fake, tmp_path, escaped, "--escaped").returncode == 0
    assert len(images(tmp_path, name)) == 1
    assert not list(tmp_path.glob("**/x"))


def test_no_name_has_a_nul(fake, tmp_path):
    done = rotate(fake, tmp_path / "images", r"a\x00b", "--escaped")
    assert done.returncode == 2 and not (tmp_path / "images").exists()


def test_a_real_domain(guest_files, tmp_path):
    daemons = Daemons()
    place = tmp_path / "images"
    try:
        with Domain(f"snapuffd-rotate-{os.getpid()}") as domain:
            domain.wait_ready()
            for _ in range(3):
                done = rotate(cli.program(), place, domain.name)
                assert done.returncode == 0, done.stderr
                time.sleep(1.1)  # the next has another name
            left = images(place, domain.name)
            assert len(left) == 2
            for image in left:
                cli.run("verify", place / domain.name / image).expect(cli.DONE)
            domain.wait_checks(1)
            virsh("destroy", domain.name)
            done = rotate(cli.program(), place, domain.name)
            assert done.returncode == 0 and "shut off" in done.stderr
            assert images(place, domain.name) == left
        done = rotate(cli.program(), place, domain.name)
        assert done.returncode == 3 and "no domain" in done.stderr
        assert images(place, domain.name) == left
    finally:
        daemons.close()


@pytest.mark.parametrize("what", ["verify", "security"])
def test_units(tmp_path, what):
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    sbin = tmp_path / "sbin"
    sbin.mkdir()
    shutil.copy(CONTRIB / "snapuffd-rotate", sbin)
    units = CONTRIB / "systemd"
    text = (units / "snapuffd-domain@.service.in").read_text()
    service = tmp_path / "snapuffd-domain@vm.service"
    service.write_text(text.replace("@sbindir@", str(sbin)))
    timer = tmp_path / "snapuffd-domain@vm.timer"
    shutil.copy(units / "snapuffd-domain@.timer", timer)
    options = ["verify", service, timer]
    if what == "security":
        options = ["security", "--offline=yes", "--threshold=70", service]
    done = subprocess.run(["systemd-analyze", "--man=no", *options],
                          capture_output=True, text=True)  # fmt: skip
    ours = [line for line in done.stderr.splitlines() if "snapuffd" in line]
    assert done.returncode == 0 and not ours, done.stdout + done.stderr
