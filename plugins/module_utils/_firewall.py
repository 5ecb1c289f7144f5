# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ports of a server in the host's firewall: one file of ours, which names them, and what has to be told of it.

With firewalld the file is a service, with ufw an application profile: a change of ports changes the file alone, and
nothing of the administrator's rules. nftables has no such thing: there the file inserts rules, marked by a comment.

ufw has one list of rules in which the first that fits decides, and a new rule replaces one that differs in its action
alone. So ports that a rule of the administrator lets in are left to that rule, which may let in fewer hosts than ours
would; and a rule that keeps everybody out is named, neither replaced nor overtaken.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _files

NAME = "clusterkit-nfs"

Run = Callable[..., str]  # runs a command, raises when it fails


@dataclass(frozen=True)
class Places:
    firewalld: str = f"/etc/firewalld/services/{NAME}.xml"
    ufw: str = f"/etc/ufw/applications.d/{NAME}"
    nftables: str = f"/etc/nftables.d/{NAME}.nft"
    nftables_main: tuple[str, ...] = ("/etc/nftables.conf", "/etc/sysconfig/nftables.conf")


@dataclass
class Firewall:
    """What has to be done, if anything."""

    file: str
    content: str | None  # None: there shall be no such file
    before: str | None
    commands: list[list[str]] = field(default_factory=list)
    stdin: str | None = None  # of the last command
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    run: Run = lambda *_: ""

    @property
    def steps(self) -> list[str]:
        words = [f"{'write' if self.content else 'remove'} {self.file}"] if self.before != self.content else []
        return words + [" ".join(command) for command in self.commands]

    @property
    def diff(self) -> list[dict[str, str]]:
        if self.before == self.content:
            return []
        header = {"before_header": self.file, "after_header": self.file}
        return [{**header, "before": self.before or "", "after": self.content or ""}]

    def apply(self) -> None:
        if self.content is not None and self.before != self.content:
            Path(self.file).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            _files.replace_file(self.file, self.content)
        for command in self.commands:
            self.run(*command, stdin=self.stdin)
        if self.content is None:
            _files.remove_file(self.file)


def make(kind: str, ports: Sequence[str], *, places: Places, run: Run) -> Firewall:
    """Compare the firewall with the ports, which are PORT/PROTOCOL; nothing is changed yet."""
    return {"firewalld": _firewalld, "ufw": _ufw, "nftables": _nftables}[kind](ports, places, run)


def _by_protocol(ports: Sequence[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for port in ports:
        number, _separator, protocol = port.partition("/")
        found.setdefault(protocol, []).append(int(number))
    return {protocol: sorted(found[protocol]) for protocol in sorted(found)}


def _firewalld(ports: Sequence[str], places: Places, run: Run) -> Firewall:
    lines = [f'  <port protocol="{p}" port="{n}"/>' for p, numbers in _by_protocol(ports).items() for n in numbers]
    head = ['<?xml version="1.0" encoding="utf-8"?>', "<service>", "  <short>NFS of clusterkit.storage</short>"]
    content = "\n".join([*head, *lines, "</service>", ""])
    wanted = Firewall(places.firewalld, content, _files.read_text(places.firewalld), run=run)
    known = wanted.before is not None
    permanent = known and NAME in run("firewall-cmd", "--permanent", "--list-services").split()
    live = known and NAME in run("firewall-cmd", "--list-services").split()
    if wanted.before != content:
        wanted.commands.append(["firewall-cmd", "--reload"])  # before it, the service is not known
    if not permanent:
        wanted.commands.append(["firewall-cmd", "--permanent", f"--add-service={NAME}"])
    if not permanent or not live:
        wanted.commands.append(["firewall-cmd", "--reload"])
    return wanted


@dataclass(frozen=True)
class _UfwRule:
    """A rule for what comes in."""

    text: str
    action: str  # allow, limit, deny or reject
    app: str
    ports: str  # 2049, 111,2049 or 20000:21000; empty: all
    protocol: str  # empty: both
    from_everywhere: bool  # whoever comes, to whichever address, by whichever interface

    def _is_about(self, port: str) -> bool:
        number, _separator, protocol = port.partition("/")
        ends = [one.partition(":") for one in self.ports.split(",")] if self.protocol in ("", protocol) else []
        return any(first and int(first) <= int(number) <= int(last or first) for first, _separator, last in ends)

    def lets_in(self, port: str) -> bool:
        return self.action in ("allow", "limit") and self._is_about(port)

    def closes(self, port: str) -> bool:
        everything = not self.ports and not self.app
        return self.action in ("deny", "reject") and self.from_everywhere and (everything or self._is_about(port))


def _ufw_rules(text: str) -> list[_UfwRule]:
    """Read `ufw show added`, whose lines UFWCommandRule.get_command in ufw/parser.py makes."""
    rules = []
    for line in text.splitlines():
        words = shlex.split(line.partition(" comment '")[0]) if line.startswith("ufw ") else []
        if len(words) < 3 or words[1] == "route" or words[2] == "out":
            continue
        rest = [word for word in words[2:] if word not in ("log", "log-all")]
        by_interface = rest[:2] == ["in", "on"]
        rest = rest[3:] if by_interface else rest
        if len(rest) == 1:  # allow 2049/tcp, allow OpenSSH
            place, _slash, protocol = rest[0].partition("/")
            app, ports = ("", place) if place[0].isdigit() else (place, "")
            everywhere = True
        else:
            start = rest.index("to") if "to" in rest else len(rest)
            source, target = rest[:start], rest[start:]
            app, ports, protocol = _behind(target, "app"), _behind(target, "port"), _behind(rest, "proto")
            everywhere = not by_interface and source in ([], ["from", "any"]) and target[1:2] == ["any"]
        rules.append(_UfwRule(" ".join(words[1:]), words[1], app, ports, protocol, everywhere))
    return rules


def _behind(words: Sequence[str], word: str) -> str:
    return words[words.index(word) + 1] if word in words else ""


def _ufw(ports: Sequence[str], places: Places, run: Run) -> Firewall:
    # `ufw status` says nothing of rules while ufw is off; what was added is known all the same.
    rules = _ufw_rules(run("ufw", "show", "added"))
    ours = [rule for rule in rules if rule.app == NAME]
    opening = [rule for rule in ours if rule.action in ("allow", "limit")]
    earlier = rules[: rules.index(opening[0])] if opening else rules
    wanted = Firewall(places.ufw, None, _files.read_text(places.ufw), run=run)
    if ours and not opening:
        wanted.problems.append(_ufw_problem(ours[0], NAME))
    left = []
    for port in ports:
        theirs = [rule for rule in rules if rule.lets_in(port)]
        closing = [rule for rule in earlier if rule.closes(port)]
        if theirs:
            wanted.notes.append(f'firewall: {port} is left to the rule "ufw {theirs[0].text}"')
        elif closing:
            wanted.problems.append(_ufw_problem(closing[0], port))
        else:
            left.append(port)
    if left:
        by_protocol = _by_protocol(left).items()
        listed = "|".join(f"{','.join(map(str, numbers))}/{protocol}" for protocol, numbers in by_protocol)
        wanted.content = f"[{NAME}]\ntitle=NFS of clusterkit.storage\ndescription=NFS server\nports={listed}\n"
        if not ours:
            wanted.commands.append(["ufw", "allow", NAME])
        elif wanted.before != wanted.content:
            wanted.commands.append(["ufw", "app", "update", NAME])
    elif any(rule.text != f"allow {NAME}" for rule in ours):
        wanted.content = wanted.before  # a rule that we have not made needs the profile
    elif ours:
        wanted.commands.append(["ufw", "delete", "allow", NAME])  # before its profile goes: ufw looks for it
    return wanted


def _ufw_problem(rule: _UfwRule, what: str) -> str:
    return (
        f'firewall: the rule "ufw {rule.text}" keeps everybody from {what}; remove it with "ufw delete {rule.text}", '
        "or leave the firewall alone with firewall: none"
    )


def _nftables(ports: Sequence[str], places: Places, run: Run) -> Firewall:
    rules = [
        f'insert rule inet filter input {protocol} dport {{ {", ".join(map(str, numbers))} }} accept comment "{NAME}"'
        for protocol, numbers in _by_protocol(ports).items()
    ]
    content = "# Managed by clusterkit.storage.nfs_service: changes made here will be overwritten.\n"
    content += "".join(f"{rule}\n" for rule in rules)
    wanted = Firewall(places.nftables, content, _files.read_text(places.nftables), run=run)
    mains = [text for text in map(_files.read_text, places.nftables_main) if text is not None]
    if not any(
        line.split("#")[0].strip().startswith("include") and "/etc/nftables.d/" in line
        for text in mains
        for line in text.splitlines()
    ):
        wanted.problems.append(
            f'firewall: {places.nftables} would not be read at boot; add `include "/etc/nftables.d/*.nft"` behind the '
            f"tables in {places.nftables_main[0]}"
        )
    listed = json.loads(run("nft", "--json", "list", "ruleset"))["nftables"]
    if not any(one.get("chain", {}).items() >= _CHAIN.items() for one in listed):
        wanted.problems.append("firewall: nftables has no chain inet filter input to insert the rules into")
        return wanted
    ours = [one["rule"] for one in listed if one.get("rule", {}).get("comment") == NAME]
    if _opened(ours) != set(ports):
        deletions = "".join(
            f"delete rule {rule['family']} {rule['table']} {rule['chain']} handle {rule['handle']}\n" for rule in ours
        )
        wanted.stdin = deletions + content  # one transaction
        wanted.commands.append(["nft", "--file", "-"])
    return wanted


_CHAIN = {"family": "inet", "table": "filter", "name": "input"}


def _opened(rules: Sequence[dict[str, Any]]) -> set[str]:
    """Return what rules of ours let in, as PORT/PROTOCOL."""
    found = set()
    for rule in rules:
        if (rule["family"], rule["table"], rule["chain"]) != tuple(_CHAIN.values()):
            continue
        for expression in rule["expr"]:
            match = expression.get("match")
            if match and "payload" in match["left"]:
                right = match["right"]
                numbers = right["set"] if isinstance(right, dict) else [right]
                found |= {f"{number}/{match['left']['payload']['protocol']}" for number in numbers}
    return found
