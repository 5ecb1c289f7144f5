# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What hosts told after an outage, and whom their mounts are for: pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils._pods import PodSet, Record, is_ending, name_of

_NFS_PORT = 2049


@dataclass(frozen=True)
class Host:
    """What a host of the inventory told, or that it told nothing."""

    name: str
    address: str = ""
    problem: str = ""  # why there is no answer
    mounts: Sequence[Mapping[str, Any]] = ()
    servers: Sequence[Mapping[str, Any]] = ()
    automounts: Sequence[Mapping[str, Any]] = ()
    wanted: Sequence[Mapping[str, Any]] = ()  # what the inventory says that it mounts for itself (nfs_client_mounts)

    def has_trigger(self, mount: Mapping[str, Any]) -> bool:
        """Whether an automount trigger lies below it, which mounts it again when it is used."""
        return any(one["mount_id"] == mount["parent_id"] for one in self.automounts)

    def server_of(self, mount: Mapping[str, Any]) -> str:
        return option_of(mount, "addr") or str(mount.get("server") or mount["source"])

    def server_answers(self, mount: Mapping[str, Any]) -> bool | None:
        """None: nobody asked it."""
        address, port = option_of(mount, "addr"), int(option_of(mount, "port") or _NFS_PORT)
        for server in self.servers:
            if (server["address"], int(server["port"])) == (address, port):
                return bool(server["answers"])
        return None


def option_of(mount: Mapping[str, Any], name: str) -> str | None:
    for option in mount["super_options"]:
        if option.startswith(f"{name}="):
            return str(option[len(name) + 1 :])
    return None


@dataclass(frozen=True)
class User:
    """Whom a mount is for."""

    # ending: deleted, its grace period is over; leaving: deleted, and has time to end by itself; running: neither;
    # gone: the API does not know it any more; host: no pod; unknown: a pod, but nobody knows which.
    state: str
    text: str
    pod: Record | None = None
    uids: tuple[str, ...] = ()

    @property
    def is_over(self) -> bool:
        return self.state in ("ending", "gone")


def load_hosts(path: str) -> list[Host]:
    """Read what the playbook kept of the hosts, a line of JSON each. Raises ValueError that names the line."""
    found = []
    with Path(path).open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, 1):
            try:
                data = json.loads(line)
                host = Host(**{key.name: data[key.name] for key in fields(Host)})
                for mount in host.mounts:
                    _check(mount)
                for one in host.wanted:
                    one["path"]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path}: line {number}: {error!r}; expected what nfs_mounts_info tells") from error
            found.append(host)
    return found


def _check(mount: Mapping[str, Any]) -> None:
    for key in ("path", "source", "mount_id", "parent_id", "major_minor", "super_options", "health"):
        if mount[key] in (None, ""):
            raise ValueError(f"mount {mount.get('path')!r} has no {key}")


class Situation:
    """The mounts of one host, and the pods that they are for."""

    def __init__(self, host: Host, cluster: PodSet, now: float) -> None:
        self.host = host
        self._now = now
        self.by_uid = {pod["uid"]: pod for pod in cluster.pods}
        self.by_uid |= {pod["static_uid"]: pod for pod in cluster.pods if pod["static_uid"]}
        # A host that mounts for a pod of this cluster belongs to it. Without that a kubeconfig of another cluster would
        # make every pod look as if it were gone.
        self._evidence = [
            self.by_uid[mount["pod"]["uid"]]["node"]
            for mount in host.mounts
            if mount.get("pod") and mount["pod"]["uid"] in self.by_uid
        ]
        self.node = self._node(cluster)
        self.mounts = sorted(host.mounts, key=lambda one: (one["path"], one["mount_id"]))
        self.users = {one["mount_id"]: self._user_of(one) for one in self.mounts}
        self.superblocks: dict[str, list[Mapping[str, Any]]] = {}
        for one in self.mounts:
            self.superblocks.setdefault(one["major_minor"], []).append(one)

    def _node(self, cluster: PodSet) -> str:
        if self._evidence:
            return str(sorted(Counter(self._evidence).items(), key=lambda one: (-one[1], one[0]))[0][0])
        for node in cluster.nodes:
            if node["name"] == self.host.name or (self.host.address and self.host.address in node["addresses"]):
                return str(node["name"])
        return ""

    def _user_of(self, mount: Mapping[str, Any]) -> User:
        if not mount.get("pod"):
            return User("host", f"the host ({mount['path']})")
        uid = mount["pod"]["uid"]
        pod = self.by_uid.get(uid)
        if pod is None:
            # kubelet gives static pods a hash for a uid, and the API may not know them.
            if self._evidence and "-" in uid:
                return User("gone", f"pod {uid}, which the API knows no more", uids=(uid,))
            return User("unknown", f"pod {uid}, which this API does not know (is it the right cluster?)")
        uids = tuple(filter(None, (pod["uid"], pod["static_uid"])))
        if not pod["deleting"]:
            return User("running", f"pod {name_of(pod)}", pod, uids)
        if is_ending(pod, self._now):
            return User("ending", f"pod {name_of(pod)}, Terminating since {pod['deleting']}", pod, uids)
        return User("leaving", f"pod {name_of(pod)}, which has until {pod['deleting']} to end by itself", pod, uids)

    def sharing(self, mount: Mapping[str, Any]) -> list[User]:
        return [self.users[one["mount_id"]] for one in self.superblocks[mount["major_minor"]]]

    def others(self, mount: Mapping[str, Any]) -> list[str]:
        """Who shares the superblock of a mount and is not being killed."""
        found = {one.text for one in self.sharing(mount) if not one.is_over}
        known = {one["path"] for one in self.mounts}
        for one in self.superblocks[mount["major_minor"]]:
            found |= {f"{path}, of which nothing is known" for path in one.get("shares_superblock_with") or []
                      if path not in known}  # fmt: skip
        return sorted(found)

    def in_the_way(self, mount: Mapping[str, Any]) -> str:
        """Why an unmount would hit something else; empty if not."""
        above = [one for one in self.mounts if one["parent_id"] == mount["mount_id"]]
        same = [one["path"] for one in above if one["path"] == mount["path"]]
        if same or mount.get("stacked"):
            return "several mounts lie on each other there; unmount them by hand"
        return f"has mounts below it ({', '.join(one['path'] for one in above)}); unmount those first" if above else ""

    def pods_here(self) -> list[Record]:
        pods = [one for one in self.by_uid.values() if self.node and one["node"] == self.node]
        return sorted({one["uid"]: one for one in pods}.values(), key=lambda one: (one["namespace"], one["name"]))
