# SPDX-License-Identifier: GPL-3.0-or-later
"""Files and commands for firewalld, ufw and nftables, with a stand-in for each; tests/exportfs has the real ones."""

from __future__ import annotations

import itertools
import json
import re
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _firewall
from ansible_collections.clusterkit.storage.plugins.module_utils._firewall import Firewall, Places
from hypothesis import given
from hypothesis import strategies as st

NAME = _firewall.NAME
VERSION_4, VERSION_3 = ["2049/tcp"], ["2049/tcp", "111/tcp", "111/udp", "20048/tcp", "20048/udp"]


class Nft:
    """What of nft the rules need: insert and delete in one transaction, and the ruleset as the real one prints it."""

    def __init__(self) -> None:
        self.chain = True
        self.rules: list[dict[str, Any]] = []  # of inet filter input, in order
        self.handles = itertools.count(4)
        self.add("tcp", [22], "")

    def add(self, protocol: str, ports: list[int], comment: str, chain: str = "input", at: int | None = None) -> None:
        right: Any = ports[0] if len(ports) == 1 else {"set": ports}
        left = {"payload": {"protocol": protocol, "field": "dport"}}
        rule = {"family": "inet", "table": "filter", "chain": chain, "handle": next(self.handles)}
        rule |= {"comment": comment} if comment else {}
        rule["expr"] = [{"match": {"op": "==", "left": left, "right": right}}, {"accept": None}]
        self.rules.insert(len(self.rules) if at is None else at, rule)

    def show(self) -> str:
        chain = {"family": "inet", "table": "filter", "name": "input", "handle": 1, "type": "filter", "policy": "drop"}
        listed: list[dict[str, Any]] = [{"metainfo": {"json_schema_version": 1}}]
        listed += [{"table": {"family": "inet", "name": "filter", "handle": 2}}]
        listed += [{"chain": chain}] if self.chain else []
        return json.dumps({"nftables": [*listed, *({"rule": rule} for rule in self.rules)]})

    def load(self, script: str) -> None:
        for line in script.splitlines():
            if line.startswith("delete"):
                handle = int(line.split()[-1])
                assert handle in {rule["handle"] for rule in self.rules}, "Error: Could not process rule"
                self.rules = [rule for rule in self.rules if rule["handle"] != handle]
            elif not line.startswith("#"):
                found = re.fullmatch(
                    r'insert rule inet filter input (\w+) dport \{ ([\d, ]+) \} accept comment "(.+)"', line
                )
                assert found, line
                self.add(found[1], [int(port) for port in found[2].split(",")], found[3], at=0)

    def opened(self) -> set[str]:
        return _firewall._opened([rule for rule in self.rules if rule.get("comment") == NAME])

    def others(self) -> list[dict[str, Any]]:
        return [rule for rule in self.rules if rule.get("comment") != NAME]


class Host:
    def __init__(self, root: Path) -> None:
        self.places = Places(
            firewalld=str(root / "firewalld.xml"),
            ufw=str(root / "ufw"),
            nftables=str(root / "clusterkit-nfs.nft"),
            nftables_main=(str(root / "nftables.conf"), str(root / "none")),
        )
        Path(self.places.nftables_main[0]).write_text('flush ruleset\ninclude "/etc/nftables.d/*.nft" # ours too\n')
        self.permanent: set[str] = {"ssh"}
        self.live: set[str] = {"ssh"}
        self.ufw: list[str] = ["allow 22/tcp"]
        self.nft = Nft()
        self.runs: list[str] = []

    def run(self, *argv: str, stdin: str | None = None) -> str:
        command = " ".join(argv)
        if "list-services" in command:
            return " ".join(self.permanent if "--permanent" in argv else self.live)
        if command == "ufw show added":
            lines = [f"ufw {rule}" for rule in self.ufw] or ["(None)"]
            return "\n".join(["Added user rules (see 'ufw status' for running firewall):", *lines, ""])
        if command == "nft --json list ruleset":
            return self.nft.show()
        self.runs.append(command)
        if "--add-service" in command:
            self.permanent.add(NAME)
        elif command == "firewall-cmd --reload":
            self.live = set(self.permanent)
        elif command.startswith("ufw delete "):
            self.ufw.remove(command.removeprefix("ufw delete "))
        elif command.startswith("ufw allow "):
            assert Path(self.places.ufw).exists(), "ERROR: Could not find a profile"
            self.ufw.append(command.removeprefix("ufw "))
        elif command == "nft --file -":
            self.nft.load(stdin or "")
        return ""

    def wanted(self, kind: str, ports: list[str]) -> Firewall:
        return _firewall.make(kind, ports, places=self.places, run=self.run)

    def ensure(self, kind: str, ports: list[str]) -> Firewall:
        wanted = self.wanted(kind, ports)
        assert wanted.problems == []
        assert bool(wanted.diff) is any(step.startswith(("write", "remove")) for step in wanted.steps)
        wanted.apply()
        return wanted

    def profile(self) -> set[str]:
        """The ports of the profile of ufw."""
        text = Path(self.places.ufw).read_text() if Path(self.places.ufw).exists() else "ports=\n"
        listed = text.rpartition("ports=")[2].strip()
        parts = [part.rpartition("/") for part in listed.split("|") if part]
        return {f"{number}/{protocol}" for numbers, _slash, protocol in parts for number in numbers.split(",")}


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


# ufw: rules of the administrator -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "left"),
    [
        # As `ufw show added` writes them.
        ("allow 2049/tcp", {"2049/tcp"}),
        ("allow 2049", {"2049/tcp"}),
        ("limit 2049/tcp", {"2049/tcp"}),
        ("allow from 10.0.0.0/8 to any port 2049 proto tcp", {"2049/tcp"}),
        ("allow in on eth1 to any port 2049 proto tcp", {"2049/tcp"}),
        ("allow log 111,2049/tcp comment 'NFS, and don't ask'", {"111/tcp", "2049/tcp"}),
        ("allow from 10.0.0.0/8 port 700:1023 to 192.0.2.1 port 20000:21000", {"20048/tcp", "20048/udp"}),
        ("allow from 10.0.0.0/8", set()),
        ("allow out 2049/tcp", set()),
        ("allow out on eth0 to any port 2049", set()),
        ("route allow in on eth0 out on eth1 to any port 2049", set()),
        ("allow 2049/udp", set()),
        ("allow 20490/tcp", set()),
        ("allow from any port 2049", set()),
        ("deny from 192.0.2.7 to any port 2049", set()),
        ("deny in on eth1 to any port 2049", set()),
        ("deny out 2049", set()),
        ("allow 'Nginx Full'", set()),
        ("allow in on eth1", set()),
    ],
)
def test_ports_that_the_administrator_lets_in_are_left_to_him(rule: str, left: set[str], host: Host) -> None:
    host.ufw.append(rule)
    wanted = host.ensure("ufw", VERSION_3)
    assert {note.split()[1] for note in wanted.notes} == left
    assert host.profile() == set(VERSION_3) - left
    assert host.ufw == ["allow 22/tcp", rule, f"allow {NAME}"]
    assert host.ensure("ufw", VERSION_3).steps == []


@pytest.mark.parametrize(
    "rule", ["deny 2049/tcp", "reject 2049", "deny to any", "deny 2000:3000/tcp", f"deny {NAME}", f"reject log {NAME}"]
)
def test_a_rule_that_keeps_everybody_out_is_neither_replaced_nor_overtaken(rule: str, host: Host) -> None:
    host.ufw.append(rule)
    (problem,) = host.wanted("ufw", VERSION_4).problems
    assert f'the rule "ufw {rule}" keeps everybody from' in problem
    assert f"ufw delete {rule}" in problem
    assert host.runs == []


def test_a_rule_that_keeps_the_rest_out_is_no_problem_behind_one_that_lets_some_in(host: Host) -> None:
    host.ufw += ["allow from 10.0.0.0/8 to any port 2049 proto tcp", "deny 2049/tcp"]
    before = list(host.ufw)
    assert host.ensure("ufw", VERSION_4).steps == []
    assert (host.ufw, host.profile()) == (before, set())


def test_a_rule_behind_ours_changes_nothing(host: Host) -> None:
    host.ensure("ufw", VERSION_4)
    host.ufw.append("deny 2049/tcp")
    assert host.ensure("ufw", VERSION_4).steps == []


def test_a_rule_of_the_administrator_for_our_profile_is_kept(host: Host) -> None:
    host.ufw.append(f"allow from 10.0.0.0/8 to any app {NAME}")
    assert host.ensure("ufw", VERSION_4).steps == [f"write {host.places.ufw}", f"ufw app update {NAME}"]
    assert host.ensure("ufw", VERSION_4).steps == []
    assert len(host.ufw) == 2
    host.ufw.append("allow 2049/tcp")
    assert host.ensure("ufw", VERSION_4).steps == []
    assert host.profile() == {"2049/tcp"}


def test_what_the_administrator_restricts_later_is_restricted(host: Host) -> None:
    host.ensure("ufw", VERSION_4)
    theirs = "allow from 10.0.0.0/8 to any port 2049 proto tcp"
    host.ufw.append(theirs)
    assert host.ensure("ufw", VERSION_4).steps == [f"remove {host.places.ufw}", f"ufw delete allow {NAME}"]
    assert host.ufw == ["allow 22/tcp", theirs]
    assert not Path(host.places.ufw).exists()
    assert host.ensure("ufw", VERSION_4).steps == []


# nftables ------------------------------------------------------------------------------------------------


def test_rules_that_would_be_lost_at_boot_are_refused(host: Host) -> None:
    main = Path(host.places.nftables_main[0])
    for text in ("flush ruleset\n", '# include "/etc/nftables.d/*.nft"\n', None):
        main.unlink() if text is None else main.write_text(text)
        (problem,) = host.wanted("nftables", VERSION_4).problems
        assert (
            f'would not be read at boot; add `include "/etc/nftables.d/*.nft"` behind the tables in {main}' in problem
        )


def test_a_host_without_the_chain_is_named(host: Host) -> None:
    host.nft.chain = False
    assert host.wanted("nftables", VERSION_4).problems == [
        "firewall: nftables has no chain inet filter input to insert the rules into"
    ]


def test_our_rules_in_another_chain_open_nothing_here_and_go(host: Host) -> None:
    host.nft.add("tcp", [2049], NAME, chain="forward")
    assert host.ensure("nftables", VERSION_4).steps
    assert [rule["chain"] for rule in host.nft.rules if rule.get("comment") == NAME] == ["input"]


# All of them, in whatever order things happen ---------------------------------------------------------------

ports = st.sets(st.sampled_from(["2049/tcp", "111/tcp", "111/udp", "20048/tcp", "20048/udp"]), min_size=1).map(sorted)
happenings = st.one_of(ports, st.sampled_from(["reload", "lost", "file lost", "file changed", "their rule"]))


def happen(host: Host, what: str, kind: str) -> None:
    """Others, a reboot or a killed run."""
    file = Path(getattr(host.places, kind))
    if what == "reload":
        host.live = set(host.permanent)
    elif what == "lost":  # until the next reload, or for good
        host.live -= {NAME}
        host.ufw = [rule for rule in host.ufw if rule != f"allow {NAME}"]
        host.nft.rules = host.nft.others()
    elif what == "file lost":
        file.unlink(missing_ok=True)
    elif what == "file changed" and file.exists():
        file.write_text(file.read_text().replace("2049", "2050"))
    elif what == "their rule":
        host.nft.add("tcp", [80], "web")
        host.ufw.append("allow 80/tcp")
        host.permanent.add("http")


@pytest.mark.parametrize("kind", ["firewalld", "ufw", "nftables"])
@given(steps=st.lists(happenings, max_size=8), last=ports)
def test_whatever_happened_one_run_opens_what_is_wanted_and_the_next_has_nothing_to_do(
    kind: str, steps: list[Any], last: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        host = Host(Path(folder))
        for step in [*steps, last]:
            theirs = (host.nft.others(), [rule for rule in host.ufw if NAME not in rule], host.permanent - {NAME})
            if isinstance(step, str):
                happen(host, step, kind)
                continue
            host.ensure(kind, step)
            now = (host.nft.others(), [rule for rule in host.ufw if NAME not in rule], host.permanent - {NAME})
            assert now == theirs, "rules of the administrator"
            if kind == "nftables":
                assert host.nft.opened() == set(step)
            elif kind == "ufw":
                assert host.profile() == set(step)
                assert host.ufw.count(f"allow {NAME}") == 1
            else:
                root = ElementTree.parse(host.places.firewalld).getroot()  # noqa: S314 - written above
                assert {f"{port.get('port')}/{port.get('protocol')}" for port in root.iter("port")} == set(step)
                assert NAME in host.permanent & host.live
            assert host.ensure(kind, step).steps == []
