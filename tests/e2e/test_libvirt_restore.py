# SPDX-License-Identifier: GPL-2.0-or-later
"""Images of libvirt's domains, back in the hands of libvirt."""

import os
import shutil

import pytest
from harness import cli
from harness.guest import Guest, GuestSpec
from harness.libvirt import Daemons, Domain, virsh


@pytest.fixture(scope="module")
def daemons(guest_files):
    daemons = Daemons()
    yield daemons
    daemons.close()


@pytest.fixture(scope="module")
def domain(daemons):
    with Domain(f"snapuffd-source-{os.getpid()}") as domain:
        yield domain.wait_ready()


@pytest.fixture(scope="module")
def image(domain, tmp_path_factory):
    """Of the domain under load."""
    image = tmp_path_factory.mktemp("image") / "image"
    domain.wait_checks(1)
    cli.run("dump", "--domain", domain.name, "--out", image).expect(cli.DONE)
    cli.run("verify", image).expect(cli.DONE)
    return image


def test_image_has_the_xml(image):
    report = cli.run("inspect", image, "--json").expect(cli.DONE).json()
    assert report["domain_xml"] is True
    text = cli.run("inspect", image).expect(cli.DONE).out
    assert "\ndomain " in (text if isinstance(text, str) else text.decode())


# convert --to libvirt


def convert(image, out, *options):
    cli.run("convert", image, "--to", "libvirt", "--out", out,
            *options).expect(cli.DONE)  # fmt: skip
    return out


def assert_usable(domain, save):
    """What people do to a domain, all of it done by libvirt."""
    domain.stop()
    assert domain.state() == "paused"
    domain.cont()
    assert domain.state() == "running"
    virsh("save", domain.name, save)
    assert domain.state() == "shut off"
    virsh("restore", save)
    domain.find()
    domain.wait_checks(2)


def test_virsh_restores_a_save_image(daemons, tmp_path):
    with Domain(f"snapuffd-saved-{os.getpid()}") as domain:
        domain.wait_ready()
        domain.wait_checks(1)
        image = tmp_path / "image"
        cli.run("dump", "--domain", domain.name, "--out", image).expect(
            cli.DONE)  # fmt: skip
        file = convert(image, tmp_path / "image.save")
        xml = virsh("save-image-dumpxml", file)
        assert virsh("domuuid", domain.name) in xml
        assert file.stat().st_mode & 0o777 == 0o600
        seen = {v.seq for v in domain.verdicts()} | {domain.judge_start}
        virsh("destroy", domain.name)

        virsh("restore", file)
        domain.find()
        assert domain.state() == "running"
        # It goes on from one of the source's own steps.
        first = domain.wait("first check", domain.verdicts)[0]
        assert first.seq - first.writes in seen
        domain.wait_checks(2)
        assert_usable(domain, tmp_path / "again.save")
        shutil.rmtree(image)
        cli.run("dump", "--domain", domain.name, "--out", image).expect(
            cli.DONE)  # fmt: skip
        virsh("shutdown", domain.name, "--mode", "acpi")
        virsh("destroy", domain.name)


def test_paused_domain_is_paused_again(daemons, tmp_path):
    with Domain(f"snapuffd-paused-{os.getpid()}") as domain:
        domain.wait_ready()
        domain.stop()
        image = tmp_path / "image"
        cli.run("dump", "--domain", domain.name, "--out", image).expect(
            cli.DONE)  # fmt: skip
        virsh("destroy", domain.name)
        virsh("restore", convert(image, tmp_path / "image.save"))
        domain.find()
        assert domain.state() == "paused"
        domain.cont()
        domain.wait_checks(2)


def test_streams(image, tmp_path):
    file = convert(image, tmp_path / "file")
    streamed = cli.run("convert", image, "--to", "libvirt", "--out", "-")
    streamed.expect(cli.DONE)
    assert streamed.out == file.read_bytes()


def test_xml_of_a_file(domain, image, tmp_path):
    """Also for an image that was dumped without libvirt's help."""
    xml = virsh("dumpxml", domain.name, "--migratable", "--security-info")
    file = tmp_path / "domain.xml"
    file.write_text(xml.replace("<memory ", "<title>by file</title><memory "))
    save = convert(image, tmp_path / "save", "--domain-xml", file)
    assert "by file" in virsh("save-image-dumpxml", save)


def test_image_without_xml(guest_files, out, tmp_path):
    with Guest(GuestSpec()) as guest:
        guest.wait_ready()
        cli.run("dump", "--pid", guest.pid, "--out", out).expect(cli.DONE)
    save = tmp_path / "save"
    cli.run("convert", out, "--to", "libvirt", "--out", save).expect_error(
        cli.FAILED, "--domain-xml")  # fmt: skip
    assert not save.exists()
    assert cli.run("inspect", out, "--json").json()["domain_xml"] is False


@pytest.mark.parametrize(
    "text, code",
    [(b"", cli.USAGE), (b"<dom", cli.USAGE), (b"<domain>\0", cli.USAGE),
     (b"<domain>" + b" " * (4 << 20), cli.FAILED)],
    ids=["empty", "no-domain", "nul", "long"],
)  # fmt: skip
def test_bad_xml_file(image, tmp_path, text, code):
    file = tmp_path / "xml"
    file.write_bytes(text)
    cli.run("convert", image, "--to", "libvirt", "--out", tmp_path / "save",
            "--domain-xml", file).expect_error(code, "--domain-xml")
    assert not (tmp_path / "save").exists()


def test_xml_goes_with_libvirt_only(tmp_path):
    cli.run("convert", tmp_path, "--to", "qemu", "--out", "x",
            "--domain-xml", "y").expect(cli.USAGE)  # fmt: skip
