# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ports of a server in the host's firewall: one file of ours, which names them, and what has to be told of it.

With firewalld the file is a service, with ufw an application profile: a change of ports changes the file alone, and
nothing of the administrator's rules. nftables has no such thing: there the file inserts rules, marked by a comment.
"""

from __future__ import annotations

import json
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
    content: str
    before: str | None
    commands: list[list[str]] = field(default_factory=list)
    stdin: str | None = None  # of the last command
    problems: list[str] = field(default_factory=list)
    run: Run = lambda *_: ""

    @property
    def steps(self) -> list[str]:
        words = [f"write {self.file}"] if self.before != self.content else []
        return words + [" ".join(command) for command in self.commands]

    @property
    def diff(self) -> list[dict[str, str]]:
        if self.before == self.content:
            return []
        header = {"before_header": self.file, "after_header": self.file}
        return [{**header, "before": self.before or "", "after": self.content}]

    def apply(self) -> None:
        if self.before != self.content:
            Path(self.file).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            _files.replace_file(self.file, self.content)
        for command in self.commands:
            self.run(*command, stdin=self.stdin)


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


def _ufw(ports: Sequence[str], places: Places, run: Run) -> Firewall:
    listed = "|".join(f"{','.join(map(str, numbers))}/{protocol}" for protocol, numbers in _by_protocol(ports).items())
    content = f"[{NAME}]\ntitle=NFS of clusterkit.storage\ndescription=NFS server\nports={listed}\n"
    wanted = Firewall(places.ufw, content, _files.read_text(places.ufw), run=run)
    # `ufw status` says nothing of rules while ufw is off; what was added is known all the same.
    added = wanted.before is not None and f"allow {NAME}" in run("ufw", "show", "added")
    if not added:
        wanted.commands.append(["ufw", "allow", NAME])
    elif wanted.before != content:
        wanted.commands.append(["ufw", "app", "update", NAME])
    return wanted


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
