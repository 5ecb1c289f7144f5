# SPDX-License-Identifier: GPL-3.0-or-later
"""The ports in a real nftables, firewalld and ufw, each in a network namespace of its own."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
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
PATH = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
VERSION_3 = ["2049/tcp", "111/tcp", "111/udp", "20048/tcp", "20048/udp"]


def program(*argv: str, stdin: str | None = None) -> str:
    return subprocess.run(argv, input=stdin, capture_output=True, text=True, check=True, env=PATH).stdout


def change(kind: str, ports: list[str]) -> tuple[list[str], list[str], list[str]]:
    """What the module finds and does: problems, notes, steps."""
    firewall = _firewall.make(kind, ports, places=_firewall.Places(), run=program)
    if not firewall.problems:
        firewall.apply()
    return firewall.problems, firewall.notes, firewall.steps


def with_nftables(*wanted: list[str]) -> list[Any]:
    """Load the administrator's rules, then want one set of ports after the other; runs in the chroot."""
    os.unshare(os.CLONE_NEWNET)
    program("nft", "--file", "/etc/nftables.conf")
    seen: list[Any] = [change("nftables", ports) for ports in wanted]
    again = program("nft", "--stateless", "list", "chain", "inet", "filter", "input")
    program("nft", "--file", "/etc/nftables.conf")  # a reboot
    after_boot = program("nft", "--stateless", "list", "chain", "inet", "filter", "input")
    return [*seen, again, after_boot]


def test_ports_come_and_go_and_survive_a_reboot(server: Server) -> None:
    server.path("/etc/nftables.d").mkdir(exist_ok=True)
    server.write("/etc/nftables.conf", RULESET + 'include "/etc/nftables.d/*.nft"\n')
    file = server.path(_firewall.Places().nftables)
    file.unlink(missing_ok=True)
    first, second, third, fourth, now, after_boot = server.call(
        with_nftables, VERSION_3, VERSION_3, ["2049/tcp"], ["2049/tcp"]
    )
    assert first == third == ([], [], [f"write {_firewall.Places().nftables}", "nft --file -"])
    assert second == fourth == ([], [], [])
    accepted = [line.strip() for line in now.splitlines() if "accept" in line]
    assert accepted == [
        'tcp dport 2049 accept comment "clusterkit-nfs"',
        "ct state established,related accept",
        "tcp dport 22 accept",
    ], "ports of NFSv3 are closed again, the administrator's rules stay"
    assert after_boot == now


def test_rules_that_would_be_lost_at_boot_are_refused(server: Server) -> None:
    server.write("/etc/nftables.conf", RULESET)
    [problem] = server.call(with_nftables, ["2049/tcp"])[0][0]
    assert "would not be read at boot" in problem
    assert 'include "/etc/nftables.d/*.nft"' in problem


def test_a_host_without_the_chain_is_named(server: Server) -> None:
    server.write("/etc/nftables.conf", 'flush ruleset\ninclude "/etc/nftables.d/*.nft"\n')
    problems = server.call(only_problems)
    assert problems == ["firewall: nftables has no chain inet filter input to insert the rules into"]


def only_problems() -> list[str]:
    os.unshare(os.CLONE_NEWNET)
    return change("nftables", ["2049/tcp"])[0]


BUS = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
"""


@contextlib.contextmanager
def firewalld() -> Iterator[None]:
    argv = (["dbus-daemon", "--config-file=/etc/bus.conf", "--nofork"], ["firewalld", "--nofork", "--nopid"])
    bus, daemon = [subprocess.Popen(one, env=PATH) for one in argv]
    try:
        deadline = time.monotonic() + 60
        while subprocess.run(["firewall-cmd", "--state"], capture_output=True, check=False, env=PATH).returncode:
            assert daemon.poll() is None, "firewalld has ended"
            assert time.monotonic() < deadline, "firewalld does not answer"
            time.sleep(0.2)
        yield
    finally:
        for process in (daemon, bus):
            process.terminate()
            process.wait()


def with_firewalld(*wanted: list[str]) -> list[Any]:
    """Want one set of ports after the other, with a change by hand before the last and a restart behind it."""
    os.unshare(os.CLONE_NEWNET)
    with firewalld():
        seen: list[Any] = [change("firewalld", ports) for ports in wanted[:-1]]
        program("firewall-cmd", f"--remove-service={_firewall.NAME}")  # until the next reload
        seen.append(change("firewalld", wanted[-1]))
        seen.append(opened_by_firewalld())
    with firewalld():
        return [*seen, opened_by_firewalld(), change("firewalld", wanted[-1])]


def opened_by_firewalld() -> list[str]:
    rules = program("nft", "list", "chain", "inet", "firewalld", "filter_IN_public_allow")
    return sorted(line.split()[2] for line in rules.splitlines() if line.split()[1:2] == ["dport"])


def test_firewalld_opens_the_ports_now_and_after_a_restart(server: Server) -> None:
    server.write("/etc/bus.conf", BUS)
    server.path("/run/dbus").mkdir()
    server.path(_firewall.Places().firewalld).unlink(missing_ok=True)
    wanted = (VERSION_3, VERSION_3, ["2049/tcp"], ["2049/tcp"])
    first, second, third, fourth, now, after_restart, last = server.call(with_firewalld, *wanted)
    allow = f"firewall-cmd --permanent --add-service={_firewall.NAME}"
    file = f"write {_firewall.Places().firewalld}"
    assert first == ([], [], [file, "firewall-cmd --reload", allow, "firewall-cmd --reload"])
    assert second == last == ([], [], [])
    assert third == ([], [], [file, "firewall-cmd --reload"])
    assert fourth == ([], [], ["firewall-cmd --reload"])
    assert now == after_restart
    assert now == ["2049", "22"]


def with_ufw(by_hand: list[str], *wanted: list[str]) -> list[Any]:
    """Want one set of ports after the other beside a rule made by hand, while ufw is off; then it is switched on."""
    os.unshare(os.CLONE_NEWNET)
    program("ufw", "--force", "reset")
    Path(_firewall.Places().ufw).unlink(missing_ok=True)
    program("ufw", *by_hand)
    seen: list[Any] = [change("ufw", ports) for ports in wanted]
    program("ufw", "--force", "enable")
    seen.append(opened_by_ufw())
    program("ufw", "reload")
    return [*seen, opened_by_ufw(), change("ufw", wanted[-1])]


def opened_by_ufw() -> list[tuple[str, str, str]]:
    """Ports, who may use them, and what becomes of him."""
    found = []
    for line in program("iptables", "-S", "ufw-user-input").splitlines():
        words = dict(itertools.pairwise(line.split()))
        ports = words.get("--dport") or words.get("--dports")
        if ports:
            found.append((ports, words.get("-s", "all"), words["-j"]))
    return found


def test_ufw_opens_the_ports_now_and_after_a_reload(server: Server) -> None:
    wanted = (VERSION_3, VERSION_3, ["2049/tcp"], ["2049/tcp"])
    first, second, third, fourth, now, after_reload, last = server.call(with_ufw, ["allow", "22/tcp"], *wanted)
    file = f"write {_firewall.Places().ufw}"
    assert first == ([], [], [file, f"ufw allow {_firewall.NAME}"])
    assert third == ([], [], [file, f"ufw app update {_firewall.NAME}"])
    assert second == fourth == last == ([], [], [])
    assert now == after_reload == [("22", "all", "ACCEPT"), ("2049", "all", "ACCEPT")]


def test_ufw_keeps_to_the_rule_that_lets_some_in(server: Server) -> None:
    rule = "allow from 10.0.0.0/8 to any port 2049 proto tcp"
    found, now, after_reload, last = server.call(with_ufw, rule.split(), ["2049/tcp"])
    assert found == last == ([], [f'firewall: 2049/tcp is left to the rule "ufw {rule}"'], [])
    assert now == after_reload == [("2049", "10.0.0.0/8", "ACCEPT")]


def test_ufw_with_a_rule_that_keeps_everybody_out_is_named(server: Server) -> None:
    found, now, *_rest = server.call(with_ufw, ["deny", "2049/tcp"], ["2049/tcp"])
    assert found[0] == [
        'firewall: the rule "ufw deny 2049/tcp" keeps everybody from 2049/tcp; remove it with "ufw delete deny '
        '2049/tcp", or leave the firewall alone with firewall: none'
    ]
    assert now == [("2049", "all", "DROP")]
