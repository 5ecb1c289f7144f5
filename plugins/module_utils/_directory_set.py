# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The directories of the shares of a host, as M(clusterkit.storage.volume_dirs_info) wrote them to a file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _json_lines

SCHEMA = 1
KIND = "DirectorySet"
_EXPECTED = "expected a file that clusterkit.storage.volume_dirs_info wrote"

Record = dict[str, Any]


@dataclass
class DirectorySet:
    """C(complete): whether everything that was asked for could be read."""

    host: str
    listed_at: str  # by the host's own clock
    complete: bool
    problems: list[str]
    shares: list[Record]
    parents: frozenset[str] = frozenset()  # below the roots, whose directories were asked for, too
    directories: list[Record] = field(default_factory=list)
    intents: list[Record] = field(default_factory=list)
    quarantined: list[Record] = field(default_factory=list)


def load(host: str, path: str) -> DirectorySet:
    """Raises ValueError that names the line when this is no such file."""
    with Path(path).open(encoding="utf-8") as stream:
        return parse(host, stream, path)


def parse(host: str, stream: Iterable[str], path: str) -> DirectorySet:
    found: DirectorySet | None = None
    records = count = 0
    places: dict[str, list[Record]] = {}
    number = 1
    try:
        for data in _json_lines.read(stream):
            if found is None:
                found, records = _header(host, data), data["records"]
                places = {
                    "Directory": found.directories,
                    "Intent": found.intents,
                    "Quarantined": found.quarantined,
                }
            else:
                places[data["kind"]].append(data)
                count += 1
            number += 1
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: line {number}: {error}; {_EXPECTED}") from error
    if found is None:
        raise ValueError(f"{path} is empty; {_EXPECTED}")
    if count != records:
        raise ValueError(f"{path} was cut off: it holds {count} records; expected {records} as its first line says")
    return found


def _header(host: str, data: Record) -> DirectorySet:
    if data.get("kind") != KIND or data.get("schema") != SCHEMA:
        raise ValueError(f"no header of kind {KIND}, schema {SCHEMA}")
    return DirectorySet(
        host, data["listed_at"], data["complete"], data["problems"], data["shares"], frozenset(data["parents"])
    )
