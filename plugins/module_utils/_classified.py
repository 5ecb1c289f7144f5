# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a classification of directories is made from, and what comes of it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ansible_collections.clusterkit.storage.plugins.module_utils._server_map import Place
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import Volume


@dataclass(frozen=True)
class Use:
    """Somebody who mounts a directory without a PersistentVolume: a pod, a workload, a host.

    Without C(server) it is a path on any host, the servers included.
    """

    who: str
    server: str
    path: str


@dataclass(frozen=True)
class Rules:
    """C(foreign_servers): servers that are certainly none of ours. C(allow_mounted_above): see C(_Classifier)."""

    exclude: Sequence[str] = ()
    foreign_servers: Sequence[str] = ()
    allow_mounted_above: bool = False


class Found(NamedTuple):
    """A directory and what it is."""

    kind: str
    host: str
    share: str
    path: str
    record: Mapping[str, Any]  # device, inode and what else the listing tells
    volume: Volume | None = None
    reason: str = ""
    obstacle: str = ""  # of what is quarantined: what stands in the way of that

    @property
    def is_root(self) -> bool:
        return self.path == self.share


User = tuple[Volume, str, str]  # a volume, the uid of its cluster, and the share


@dataclass
class Classified:
    cluster_uid: str
    directories: list[Found] = field(default_factory=list)
    missing: list[tuple[Volume, Place]] = field(default_factory=list)
    doubts: dict[str, str] = field(default_factory=dict)  # by uid: why a missing one may be there, or must be let alone
    # Volumes of which nobody knows for sure in which directory they lie, and those that were not looked at.
    unplaced: list[Volume] = field(default_factory=list)
    unlisted: list[tuple[Volume, Place]] = field(default_factory=list)
    users: dict[tuple[str, str], list[User]] = field(default_factory=dict)  # by host and directory
    keep: dict[str, list[str]] = field(default_factory=dict)  # by host: directories of volumes, and shares
    carriers: list[tuple[str, Place]] = field(default_factory=list)  # provisioners, and the root that each works in

    @functools.cached_property
    def placed(self) -> dict[str, tuple[Volume, Place]]:
        """The volumes of this cluster, by uid, and where they lie."""
        return {
            volume.uid: (volume, Place(host, share, directory))
            for (host, directory), users in self.users.items()
            for volume, cluster, share in users
            if cluster == self.cluster_uid
        }
