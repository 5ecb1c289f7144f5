# SPDX-License-Identifier: GPL-3.0-or-later
"""A volume's server is recognised by any name or address of the host, and never by one that all hosts have."""

from __future__ import annotations

from ansible_collections.clusterkit.storage.plugins.module_utils import _addresses

FACTS = {
    "fqdn": "Files.example.org",
    "hostname": "files",
    "all_ipv4_addresses": ["192.0.2.1", "127.0.1.1"],
    "all_ipv6_addresses": ["2001:db8:0:0::1", "fe80::1"],
}


def test_every_spelling_of_the_host_is_recognised() -> None:
    known = {"server1": _addresses.of_host("server1", "10.9.9.9", FACTS), "other": ["192.0.2.2"]}
    for name in ("server1", "files", "FILES.example.org.", "192.0.2.1", "2001:db8::1", "[2001:DB8::1]", "10.9.9.9"):
        assert _addresses.owners(name, known) == ["server1"], name
    assert _addresses.owners("192.0.2.3", known) == []


def test_addresses_that_every_host_has_name_nobody() -> None:
    of_host = _addresses.of_host("server1", "127.0.0.1", {**FACTS, "fqdn": "localhost.localdomain"})
    assert of_host == ["server1", "files", "192.0.2.1", "2001:db8::1"]


def test_an_address_on_two_hosts_names_both() -> None:
    bridge = {"a": ["172.17.0.1"], "b": ["172.17.0.1", "192.0.2.2"]}
    assert _addresses.owners("172.17.0.1", bridge) == ["a", "b"]


def test_one_spelling_for_all() -> None:
    assert _addresses.normal(" [FE80:0::1%eth0] ") == "fe80::1"
    assert _addresses.normal("Files.Example.org.") == "files.example.org"
    assert _addresses.normal("192.0.2.1") == "192.0.2.1"
    assert _addresses.normal("XboX") == "xbox"


def test_a_host_that_calls_itself_localhost_has_its_other_names() -> None:
    facts = {"fqdn": "localhost.localdomain", "nodename": "Files", "hostname": "LOCALHOST"}
    assert _addresses.of_host("localhost", "192.0.2.1", facts) == ["192.0.2.1", "files"]
