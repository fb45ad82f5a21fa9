# SPDX-License-Identifier: GPL-2.0-or-later
"""Images of libvirt's domains, back in the hands of libvirt."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from harness import cli
from harness.guest import Guest, GuestSpec, assert_same_instant
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


# restore --domain


class DomainClone(Domain):
    """What `restore --domain` has made; undefined and removed in the end."""

    def __init__(self, source, image, *options, name=None):
        self.spec = source.spec
        self.name = name or f"{source.name}-clone"
        words = ["--domain", name] if name else ["--domain"]
        self.result = cli.run("restore", image, *words, "--json",
                              *options).expect(cli.DONE)  # fmt: skip
        self.report = self.result.json()
        self.dir = Path(self.report["dir"])
        self.shm_dir = None
        self.find()

    @property
    def serial_path(self):
        return self.dir / "serial0"

    def xml(self):
        return virsh("dumpxml", self.name)


class FullDomain(Domain):
    """With a disk that is written to, a network interface and a display."""

    MAC = "52:54:00:11:22:33"

    def xml(self):
        return super().xml().replace("</devices>", f"""
    <disk type='file' device='disk'>
      <driver name='qemu' type='{self.spec.disk}'/>
      <source file='{self.disk}'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <interface type='user'>
      <mac address='{self.MAC}'/>
      <model type='e1000'/>
    </interface>
    <graphics type='vnc' port='5977' autoport='no' passwd='secret'/>
  </devices>""")  # fmt: skip


def assert_beside(source, clone):
    """Both are alive, each with memory of its own."""
    assert_same_instant(source, clone)
    source.wait_checks(2)
    clone.wait_checks(2)
    assert source.state() == clone.state() == "running"
    uuids = {virsh("domuuid", domain.name) for domain in (source, clone)}
    assert len(uuids) == 2


@pytest.mark.parametrize("eager", [False, True], ids=["mapped", "eager"])
def test_clone_beside_the_original(domain, image, eager):
    with DomainClone(domain, image, *(["--eager"] * eager)) as clone:
        assert clone.report["eager"] is eager
        assert clone.report["state"] == "running"
        assert not clone.result.err
        assert_beside(domain, clone)
        assert not (clone.dir / "save").exists()
        assert clone.dir.stat().st_mode & 0o777 == 0o711
        # Defined, and as the first one is.
        assert clone.name in virsh("list", "--name", "--persistent")
        assert "qemu:arg" not in virsh("dumpxml", "--inactive", clone.name)
        if not eager:
            ram = clone.dir / "ram"
            assert ram.stat().st_mode & 0o777 == 0o600
            assert ram.stat().st_uid != 0
    cli.run("verify", image).expect(cli.DONE)
    assert virsh("domstate", domain.name) == "running"


@pytest.fixture
def open_path():
    """Where libvirt-qemu can get to."""
    path = Path(tempfile.mkdtemp(prefix="snapuffd-", dir="/var/tmp"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


def test_what_libvirt_does_to_a_clone(domain, image, open_path, tmp_path):
    name = f"snapuffd-named-{os.getpid()}"
    with DomainClone(domain, image, "--dir", open_path / "dir",
                     name=name) as clone:  # fmt: skip
        assert clone.name == name and clone.dir == open_path / "dir"
        clone.wait_checks(1)
        assert_usable(clone, tmp_path / "clone.save")
        cli.run("restore", image, "--domain", name).expect_error(
            cli.REFUSED, "already")  # fmt: skip
        virsh("destroy", name)
        # By its definition, from the start.
        clone.boot()
        clone.wait_ready()
    assert name not in virsh("list", "--all", "--name")


def test_clone_has_devices_of_its_own(daemons, tmp_path):
    spec = GuestSpec(disk="qcow2")
    with FullDomain(f"snapuffd-full-{os.getpid()}", spec) as source:
        source.wait_ready()
        source.wait_checks(1)
        image = tmp_path / "image"
        cli.run("dump", "--domain", source.name, "--out", image, "--disks",
                "overlay").expect(cli.DONE)  # fmt: skip
        with DomainClone(source, image) as clone:
            assert "MAC" in clone.result.err
            assert_beside(source, clone)
            xml = virsh("dumpxml", clone.name, "--security-info")
            assert source.MAC not in xml and "52:54:00:" in xml
            assert "5977" not in xml and "passwd='secret'" in xml
            assert f"<source file='{clone.dir}/" in xml
            assert str(source.dir / "serial") not in xml
            overlays = list(clone.dir.glob("*.qcow2"))
            assert len(overlays) == 1


def test_paused_image_makes_a_paused_clone(domain, tmp_path):
    image = tmp_path / "image"
    domain.stop()
    try:
        cli.run("dump", "--domain", domain.name, "--out", image).expect(
            cli.DONE)  # fmt: skip
    finally:
        domain.cont()
    with DomainClone(domain, image) as clone:
        assert clone.report["state"] == clone.state() == "paused"
        clone.cont()
        assert_beside(domain, clone)


def test_failed_start_leaves_nothing(domain, image, tmp_path):
    """libvirt takes the file, but QEMU does not get to its RAM."""
    before = virsh("list", "--all", "--name")
    tmp_path.chmod(0o700)  # so QEMU finds nothing
    cli.run("restore", image, "--domain", "--dir", tmp_path / "dir"
            ).expect_error(cli.FAILED, "did not start")  # fmt: skip
    assert virsh("list", "--all", "--name") == before
    assert not (tmp_path / "dir").exists()


def test_clone_of_no_domain(daemons, guest_files, out):
    with Guest(GuestSpec()) as guest:
        guest.wait_ready()
        cli.run("dump", "--pid", guest.pid, "--out", out).expect(cli.DONE)
    cli.run("restore", out, "--domain").expect_error(cli.FAILED, "--domain")


@pytest.mark.parametrize(
    "uri, word",
    [("qemu+ssh://root@elsewhere.invalid/system", "another host"),
     ("test:///default", "driver"),
     ("qemu+unix:///system?socket=/nowhere", "nowhere")],
    ids=["remote", "driver", "no-daemon"],
)  # fmt: skip
def test_bad_uri(image, uri, word):
    cli.run("restore", image, "--domain", "--connect", uri).expect_error(
        cli.REFUSED, word)  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [("--connect", "qemu:///system"), ("--domain", "x", "--print"),
     ("--domain", "--qmp", "y"), ("--domain=a/b",), ("--domain=",),
     ("--domain", "x", "--", "qemu-system-x86_64")],
    ids=lambda words: words[0] if len(words) == 1 else " ".join(words),
)  # fmt: skip
def test_usage_of_restore(image, arguments):
    cli.run("restore", image, *arguments).expect(cli.USAGE)
