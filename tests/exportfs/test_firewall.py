# SPDX-License-Identifier: GPL-3.0-or-later
"""The ports in a real nftables, in a network namespace of its own. firewalld and ufw are not run here."""

from __future__ import annotations

import os
import subprocess
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _firewall

from .chroot import Server

RULESET = """\
flush ruleset
table inet filter {
  chain input {
    type filter hook input priority filter; policy drop;
    ct state established,related accept
    tcp dport 22 accept
  }
}
"""
VERSION_3 = ["2049/tcp", "111/tcp", "111/udp", "20048/tcp", "20048/udp"]


def nft(*argv: str, stdin: str | None = None) -> str:
    done = subprocess.run([f"/usr/sbin/{argv[0]}", *argv[1:]], input=stdin, capture_output=True, text=True, check=True)
    return done.stdout


def run(*steps: list[str]) -> list[Any]:
    """Load the administrator's rules, then want one set of ports after the other; runs in the chroot."""
    os.unshare(os.CLONE_NEWNET)
    nft("nft", "--file", "/etc/nftables.conf")
    seen = []
    for ports in steps:
        firewall = _firewall.make("nftables", ports, places=_firewall.Places(), run=nft)
        seen.append((firewall.problems, firewall.steps))
        if not firewall.problems:
            firewall.apply()
    again = nft("nft", "--stateless", "list", "chain", "inet", "filter", "input")
    nft("nft", "--file", "/etc/nftables.conf")  # a reboot
    after_boot = nft("nft", "--stateless", "list", "chain", "inet", "filter", "input")
    return [*seen, again, after_boot]


def test_ports_come_and_go_and_survive_a_reboot(server: Server) -> None:
    server.path("/etc/nftables.d").mkdir(exist_ok=True)
    server.write("/etc/nftables.conf", RULESET + 'include "/etc/nftables.d/*.nft"\n')
    file = server.path(_firewall.Places().nftables)
    file.unlink(missing_ok=True)
    first, second, third, fourth, now, after_boot = server.call(run, VERSION_3, VERSION_3, ["2049/tcp"], ["2049/tcp"])
    assert first == ([], [f"write {_firewall.Places().nftables}", "nft --file -"])
    assert second == fourth == ([], [])
    assert third[1] == first[1]
    accepted = [line.strip() for line in now.splitlines() if "accept" in line]
    assert accepted == [
        'tcp dport 2049 accept comment "clusterkit-nfs"',
        "ct state established,related accept",
        "tcp dport 22 accept",
    ], "ports of NFSv3 are closed again, the administrator's rules stay"
    assert after_boot == now


def test_rules_that_would_be_lost_at_boot_are_refused(server: Server) -> None:
    server.write("/etc/nftables.conf", RULESET)
    [problem] = server.call(run, ["2049/tcp"])[0][0]
    assert "would not be read at boot" in problem
    assert 'include "/etc/nftables.d/*.nft"' in problem


def test_a_host_without_the_chain_is_named(server: Server) -> None:
    server.write("/etc/nftables.conf", 'flush ruleset\ninclude "/etc/nftables.d/*.nft"\n')
    problems = server.call(only_problems)
    assert problems == ["firewall: nftables has no chain inet filter input to insert the rules into"]


def only_problems() -> list[str]:
    os.unshare(os.CLONE_NEWNET)
    return _firewall.make("nftables", ["2049/tcp"], places=_firewall.Places(), run=nft).problems
