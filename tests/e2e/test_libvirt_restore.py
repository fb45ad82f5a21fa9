# SPDX-License-Identifier: GPL-2.0-or-later
"""Images of libvirt's domains, back in the hands of libvirt."""

import os

import pytest
from harness import cli
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
