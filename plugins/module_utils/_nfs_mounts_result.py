# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What became of a host's NFS mounts, item by item, and what that looks like to a person. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils._mounts import Mount, MountTable
from ansible_collections.clusterkit.storage.plugins.module_utils._nfs_mounts import Planned


@dataclass
class Result:
    """What became of one item."""

    planned: Planned
    actions: list[str] = field(default_factory=list)
    failure: str | None = None
    live: Mount | None = None
    notes: list[str] = field(default_factory=list)

    def note(self, *notes: str) -> None:
        self.notes += [note for note in notes if note not in self.notes]

    def to_dict(self) -> dict[str, Any]:
        item = self.planned.wanted
        live = None
        if self.live is not None:
            live = {
                "source": self.live.source,
                "options": list(self.live.options),
                "super_options": list(self.live.super_options),
            }
        return {
            "path": item.path,
            "src": item.source or None,
            "state": item.state,
            "changed": bool(self.actions),
            "failed": self.failure is not None,
            "msg": self.failure or "",
            "actions": self.actions,
            "notes": self.notes,
            "live": live,
        }


@dataclass
class Outcome:
    """What became of the whole call."""

    results: list[Result]
    changed: bool
    failures: list[str]
    warnings: list[str]
    diff: list[dict[str, str]]
    mount_defaults_changed: bool = False


def diff(name: str, before: str, after: str) -> list[dict[str, str]]:
    """Return a difference as Ansible shows it; none if there is none."""
    if before == after:
        return []
    return [{"before_header": name, "after_header": name, "before": before, "after": after}]


def live_diff(results: Sequence[Result], before: MountTable, after: MountTable | None) -> list[dict[str, str]]:
    """Return the difference of the live mounts; without `after`, the one that the plans would make."""
    paths = [result.planned.path for result in results]
    text = "".join(_shown(path, before) for path in paths)
    if after is not None:
        return diff("live mounts", text, "".join(_shown(path, after) for path in paths))
    return diff("live mounts", text, "".join(_predicted(result, before) for result in results))


def _shown(path: str, table: MountTable) -> str:
    return "".join(
        f"{each.source} {each.path} {each.fstype} {','.join(each.options)} {','.join(each.super_options)}\n"
        for each in table.find(path).stack
        if each.is_nfs
    )


def _predicted(result: Result, before: MountTable) -> str:
    planned, item = result.planned, result.planned.wanted
    if result.failure is not None or not planned.changes_live:
        return _shown(planned.path, before)
    if not planned.mount and not planned.remount:
        return ""
    return f"{item.source} {planned.path} nfs {','.join(item.options) or 'defaults'}\n"
