# SPDX-License-Identifier: GPL-3.0-or-later
"""Files and commands for firewalld and ufw, with stand-ins for both. nftables is tried with the real one."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _firewall
from ansible_collections.clusterkit.storage.plugins.module_utils._firewall import Firewall, Places

NAME = _firewall.NAME
VERSION_4, VERSION_3 = ["2049/tcp"], ["2049/tcp", "111/tcp", "111/udp", "20048/tcp", "20048/udp"]


class Host:
    def __init__(self, root: Path) -> None:
        self.places = Places(firewalld=str(root / "firewalld.xml"), ufw=str(root / "ufw"))
        self.permanent: set[str] = {"ssh"}
        self.live: set[str] = {"ssh"}
        self.added = False
        self.runs: list[str] = []

    def run(self, *argv: str, stdin: str | None = None) -> str:  # noqa: ARG002 (as the real one)
        command = " ".join(argv)
        if "list-services" in command:
            return " ".join(self.permanent if "--permanent" in argv else self.live)
        if command == "ufw show added":
            return f"ufw allow {NAME}\n" if self.added else "ufw allow 22/tcp\n"
        self.runs.append(command)
        if "--add-service" in command:
            self.permanent.add(NAME)
        elif command == "firewall-cmd --reload":
            self.live = set(self.permanent)
        elif command == f"ufw allow {NAME}":
            self.added = True
        return ""

    def ensure(self, kind: str, ports: list[str]) -> Firewall:
        wanted = _firewall.make(kind, ports, places=self.places, run=self.run)
        assert wanted.problems == []
        wanted.apply()
        return wanted


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_firewalld_service_is_made_and_allowed_once(host: Host) -> None:
    assert host.ensure("firewalld", VERSION_3).steps
    root = ElementTree.parse(host.places.firewalld).getroot()  # noqa: S314 - written above
    ports = {f"{port.get('port')}/{port.get('protocol')}" for port in root.iter("port")}
    assert ports == set(VERSION_3)
    assert NAME in host.permanent and NAME in host.live
    assert host.ensure("firewalld", VERSION_3).steps == []

    host.live = {"ssh"}  # somebody took it away until the next reload
    assert host.ensure("firewalld", VERSION_3).steps == ["firewall-cmd --reload"]
    # Other ports change the service alone.
    assert host.ensure("firewalld", VERSION_4).steps == [f"write {host.places.firewalld}", "firewall-cmd --reload"]
    assert "111" not in Path(host.places.firewalld).read_text()


def test_ufw_profile_is_made_and_allowed_once(host: Host) -> None:
    assert host.ensure("ufw", VERSION_3).steps == [f"write {host.places.ufw}", f"ufw allow {NAME}"]
    assert "ports=111,2049,20048/tcp|111,20048/udp\n" in Path(host.places.ufw).read_text()
    assert host.ensure("ufw", VERSION_3).steps == []
    assert host.ensure("ufw", VERSION_4).steps == [f"write {host.places.ufw}", f"ufw app update {NAME}"]
    assert "ports=2049/tcp\n" in Path(host.places.ufw).read_text()
