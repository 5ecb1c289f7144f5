# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps, refusals and notes of a plan of recovery: what they look like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils._pods import Record, name_of


def item_of(host: str, path: str) -> str:
    return f"{host}:{path}"


@dataclass
class Findings:
    """What is to be done, what is refused, and what is worth knowing."""

    steps: list[dict[str, Any]] = field(default_factory=list)
    refusals: list[dict[str, str]] = field(default_factory=list)
    notes: list[dict[str, str]] = field(default_factory=list)
    pods: list[dict[str, Any]] = field(default_factory=list)  # those that kubelet is going to remove
    handled: set[str] = field(default_factory=set)  # uids for which all is said

    def refuse(self, host: str, item: str, reason: str) -> None:
        self._add(self.refusals, host, item, reason)

    def note(self, host: str, item: str, reason: str) -> None:
        self._add(self.notes, host, item, reason)

    @staticmethod
    def _add(to: list[dict[str, str]], host: str, item: str, reason: str) -> None:
        entry = {"item": item, "host": host, "reason": reason}
        if entry not in to:
            to.append(entry)

    def mount_step(self, host: str, mount: Mapping[str, Any], **more: Any) -> None:
        """A step of nfs_recover."""
        precondition = {"mount_id": mount["mount_id"], "major_minor": mount["major_minor"]}
        self.steps.append(
            {
                "item": item_of(host, mount["path"]),
                "host": host,
                "module": "nfs_recover",
                "path": mount["path"],
                "source": mount["source"],
                "before": f"{mount['health']}, {mount['source']}",
                **more,
                "precondition": {**precondition, **more.get("precondition", {})},
            }
        )

    def missing_step(self, host: str, wanted: Mapping[str, Any], path: str) -> None:
        """A step of nfs_mounts: what the inventory wants at this (normal) path."""
        armed = wanted.get("automount") or "x-systemd.automount" in str(wanted.get("options"))
        self.steps.append(
            {
                "item": item_of(host, path),
                "host": host,
                "module": "nfs_mounts",
                "action": "mount",
                "path": wanted["path"],
                "precondition": {"mounted": "nothing"},
                "before": "not mounted",
                "after": "automount armed" if armed else "mounted",
                "reason": "nfs_client_mounts of the inventory says so",
            }
        )

    def pod_step(self, host: str, pod: Record, action: str, after: str, reason: str) -> None:
        """A step of pod_recover."""
        since = f"Terminating since {pod['deleting']}" if pod["deleting"] else pod["phase"]
        self.steps.append(
            {
                "item": name_of(pod),
                "host": host,
                "module": "pod_recover",
                "action": action,
                "namespace": pod["namespace"],
                "name": pod["name"],
                # Not its version: kubelet and controllers change the status of a pod all the time.
                "precondition": {"uid": pod["uid"]},
                "before": since,
                "after": after,
                "reason": reason,
            }
        )
