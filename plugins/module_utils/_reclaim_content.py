# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose content goes into quarantine before a volume is opened to any claim: pure.

Only what lies in the directory of one volume alone, and of which a server has told what it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils._classified import Found, Rules
from ansible_collections.clusterkit.storage.plugins.module_utils._classify import classify, is_nfs
from ansible_collections.clusterkit.storage.plugins.module_utils._cleanup import check_listing
from ansible_collections.clusterkit.storage.plugins.module_utils._directory_set import DirectorySet
from ansible_collections.clusterkit.storage.plugins.module_utils._listing import Listing
from ansible_collections.clusterkit.storage.plugins.module_utils._reclaim import Decision
from ansible_collections.clusterkit.storage.plugins.module_utils._server_map import Place, ServerMap
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import Volume

ARGUMENTS: dict[str, Any] = {
    "content": {"type": "str", "choices": ["keep", "quarantine"], "default": "keep"},
    "volumes": {"type": "path"},
    "directories": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"host": {"type": "str", "required": True}, "path": {"type": "path", "required": True}},
    },
    "storage_servers": {"type": "list", "elements": "dict", "default": []},
}


@dataclass
class Contents:
    """By uid of the volume, the directory whose content goes, or why it cannot. C(keep): directories of others."""

    places: dict[str, Found] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)
    keep: list[str] = field(default_factory=list)
    storage_servers: Sequence[Mapping[str, Any]] = ()


def find(
    decisions: Iterable[Decision],
    sets: Sequence[DirectorySet],
    listing: Listing,
    storage_servers: Sequence[Mapping[str, Any]],
) -> Contents:
    """C(listing): all volumes of the cluster. Raises ValueError when it is not of all of them."""
    check_listing(listing)
    classified = classify(sets, [listing], ServerMap(storage_servers), None, Rules())
    there = {(one.host, one.path): one for one in classified.directories}
    made = Contents(storage_servers=storage_servers)
    for decision in decisions:
        volume = decision.volume
        if not opens(decision):
            continue
        _volume, place = classified.placed.get(volume.uid, (None, None))
        found = there.get((place.host, place.directory)) if place else None
        problem = _why_not(volume, place, found)
        if problem or found is None:
            made.refusals[volume.uid] = f"its content cannot be put away first: {problem}"
        else:
            made.places[volume.uid] = found
    planned = {(one.host, one.path) for one in made.places.values()}
    keep = {path for host, paths in classified.keep.items() for path in paths if (host, path) not in planned}
    made.keep = sorted(keep)
    return made


def opens(decision: Decision) -> bool:
    """Whether any claim may take the volume afterwards, and could not before."""
    spec = decision.patch.get("spec", {})
    return "claimRef" in spec and spec["claimRef"] is None


def _why_not(volume: Volume, place: Place | None, found: Found | None) -> str:
    if not is_nfs(volume):
        return "it is no volume on NFS, so nobody here knows where that is"
    if volume.phase not in ("Released", "Failed"):
        return f"it is {volume.phase}, and a claim may take it at any moment"
    if place is None:
        return f"nobody knows for sure in which directory {volume.server}:{volume.path} lies"
    if found is None:
        return f"{place.directory} on {place.host} is not there, or was not listed"
    # What an earlier run has begun with it this one does again.
    begun = found.kind == "quarantined" and not found.obstacle
    if found.kind not in ("released", "failed") and not begun:
        return f"{found.path} is {found.kind}: {found.obstacle or found.reason}"
    if found.record.get("mount_point") and not found.is_root:
        return f"{found.path} is a mount point"
    return ""
