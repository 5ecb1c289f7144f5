# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The effective table of exports against the files: what is wanted, what is there, what has to happen.

Pure: what the machine says comes in as text, a plan goes out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.clusterkit.storage.plugins.module_utils import (
    _export_clients,
    _export_list,
    _export_options,
    _exports,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._export_list import Export
from ansible_collections.clusterkit.storage.plugins.module_utils._export_options import Dialect, Meaning
from ansible_collections.clusterkit.storage.plugins.module_utils._exports import Entry


@dataclass(frozen=True, order=True)
class Key:
    """What identifies an export for exportfs: the real path, and the client."""

    path: str
    client: str

    def __str__(self) -> str:
        return f"{self.path} to {self.client}"


class Clients:
    """Which client specifications mean the same client: for exportfs, names that share an address do."""

    def __init__(self, addresses: Mapping[str, Iterable[str]]) -> None:
        """`addresses` holds the addresses of every host name in use, and of no others."""
        self._first: dict[str, str] = {}  # address: the client that was seen with it first
        self._names: dict[str, str] = {}
        for name in sorted(addresses):
            found = sorted({_export_clients.client_key(address) for address in addresses[name]})
            known = [self._first[address] for address in found if address in self._first]
            self._names[name.lower()] = known[0] if known else name.lower()
            for address in found:
                self._first.setdefault(address, self._names[name.lower()])

    def key(self, host: str) -> str:
        client = _export_clients.client_key(host)
        return self._names.get(client) or self._first.get(client) or client


def host_names(hosts: Iterable[str]) -> list[str]:
    """Return the clients that are host names and have to be resolved, each once."""
    return sorted(
        {
            host.lower()
            for host in hosts
            if _export_clients.client_kind(host) == "host" and not _export_clients.is_address(host) and host.strip(".")
        }
    )


@dataclass(frozen=True)
class ForeignFile:
    """An exports file that is not ours, as exportfs reads it."""

    path: str
    read: _exports.ExportsFile

    def warnings(self) -> list[str]:
        found = [f"{self.path}:{problem.line}: {problem.text}" for problem in self.read.problems]
        if self.read.lost:
            lost = ", ".join(sorted({f"{entry.path} to {entry.host or '*'}" for entry in self.read.lost}))
            found.append(f"{self.path}: exportfs reads no further, these exports are lost: {lost}")
        return found


@dataclass(frozen=True)
class Rules:
    """How this machine names things: real paths and clients."""

    clients: Clients
    real_paths: Mapping[str, str]

    def key(self, path: str, host: str) -> Key:
        return Key(self.real_paths.get(path, path), self.clients.key(host))

    def table(self, entries: Iterable[Entry]) -> dict[Key, Meaning]:
        """Return what is effective of a list of entries: the first of each key, as exportfs has it."""
        table: dict[Key, Meaning] = {}
        for entry in entries:
            table.setdefault(self.key(entry.path, entry.host), entry.meaning)
        return table


@dataclass
class Plan:
    """What the run has to do. All tables are by key."""

    wanted: dict[Key, Meaning]
    before: dict[Key, Meaning]
    foreign: dict[Key, Meaning]  # what foreign files say
    ours: set[Key] = field(default_factory=set)  # keys that this run answers for
    wrong: dict[Key, list[str]] = field(default_factory=dict)  # wanted, but not so in the table
    leftover: list[Key] = field(default_factory=list)  # ours, in the table, in no file any more
    uninvited: list[Key] = field(default_factory=list)  # those of them that somebody made by hand
    by_hand: list[Key] = field(default_factory=list)  # in the table, in no file, none of ours: kept
    pending: list[Key] = field(default_factory=list)  # foreign files say otherwise than the table

    @property
    def table_is_right(self) -> bool:
        return not self.wrong and not self.leftover

    @property
    def after(self) -> dict[Key, Meaning]:
        """The table that re-exporting is expected to make."""
        if self.table_is_right:
            return self.before
        kept = {key: self.before[key] for key in self.by_hand}
        return {**kept, **self.foreign, **self.wanted}

    def failures(self, table: Mapping[Key, Meaning]) -> list[str]:
        """Return how a table that was read afterwards differs from what this run may leave behind."""
        found = []
        for key, meaning in sorted(self.wanted.items()):
            there = table.get(key)
            if there is None:
                found.append(f"{key} is not exported")
            else:
                found += [f"{key}: {difference}" for difference in _export_options.differences(meaning, there)]
        found += [f"{key} is still exported" for key in self.leftover if key in table]
        for key in sorted((set(self.before) | set(table)) - self.ours):
            there = table.get(key)
            if there != self.before.get(key) and (key not in self.foreign or there != self.foreign[key]):
                found.append(f"{key}, which is not in the list, was " + ("withdrawn" if there is None else "changed"))
        return found


def make_plan(
    wanted: Mapping[Key, Meaning],
    written_before: Iterable[Key],
    foreign: Mapping[Key, Meaning],
    before: Mapping[Key, Meaning],
) -> Plan:
    """Compare the list, the keys that our file held before, the foreign files, and the effective table."""
    plan = Plan(wanted=dict(wanted), before=dict(before), foreign=dict(foreign))
    past = set(written_before)
    our_paths = {key.path for key in plan.wanted} | {key.path for key in past}
    plan.ours = set(plan.wanted) | (past - set(plan.foreign))
    for key in sorted(set(plan.before) - set(plan.wanted) - set(plan.foreign)):
        if key.path in our_paths:
            # Whoever exported one of our paths to somebody else by hand did it behind the list's back.
            plan.ours.add(key)
            plan.leftover.append(key)
            if key not in past:
                plan.uninvited.append(key)
        else:
            plan.by_hand.append(key)
    for key, meaning in sorted(plan.wanted.items()):
        there = plan.before.get(key)
        if there != meaning:
            plan.wrong[key] = ["not exported"] if there is None else _export_options.differences(meaning, there)
    plan.pending = sorted(key for key, meaning in plan.foreign.items() if plan.before.get(key) != meaning)
    return plan


def clashes(exports: Sequence[Export], foreign: Sequence[ForeignFile], rules: Rules) -> list[str]:
    """Return exports that exportfs would ignore, or mix up with others."""
    problems = []
    elsewhere: dict[Key, str] = {}
    fsids: dict[str, tuple[str, str]] = {}
    for file in foreign:
        for entry in file.read.effective:
            place = f"{file.path}:{entry.line}"
            elsewhere.setdefault(rules.key(entry.path, entry.host), place)
            for fsid in _export_list.fsids(entry.meaning):
                fsids.setdefault(fsid, (rules.real_paths.get(entry.path, entry.path), place))
    first: dict[Key, str] = {}
    for export in exports:
        for client in export.clients:
            key = rules.key(export.path, client.host)
            if key in first:
                problems.append(
                    f'{client.label}.host: {key.path} has the client "{client.host}" already ({first[key]})'
                )
            elif key in elsewhere:
                problems.append(f'{client.label}.host: {elsewhere[key]} exports {key.path} to "{client.host}" too')
            first.setdefault(key, client.label)
            for fsid in _export_list.fsids(client.meaning):
                owner = fsids.get(fsid)
                if owner is not None and owner[0] != key.path:
                    path, place = owner
                    problems.append(f"{client.label}.options: fsid={fsid} belongs to {path} already ({place})")
    return problems


def read_foreign(path: str, text: str, dialect: Dialect) -> ForeignFile:
    return ForeignFile(path, _exports.parse(text, dialect))


def show(table: Mapping[Key, Meaning]) -> str:
    """Return a table as text, for a diff: one export a line."""
    return "".join(f"{key.path} {key.client}({','.join(table[key].options())})\n" for key in sorted(table))
