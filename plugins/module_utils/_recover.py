# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to be done on nodes and with pods after an outage of an NFS server: pure decisions.

A writer that waits for its server is freed by nothing but the server, or by C(umount -f), which ends all requests of a
superblock with EIO: those of every mount with the same major:minor. So it is used where every mount of the superblock
belongs to a pod that is being killed anyhow. C(umount -l) takes a mount out of kubelet's way and loses nothing: what
is open stays open, and is written when the server is back.
"""

from __future__ import annotations

import json
import posixpath
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _plan, _pods
from ansible_collections.clusterkit.storage.plugins.module_utils._mounts import is_within, split_source
from ansible_collections.clusterkit.storage.plugins.module_utils._pods import PodSet, Record, is_ending, name_of
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import seconds_since

ARGUMENTS: dict[str, Any] = {
    "nodes": {"type": "path", "required": True},
    "allow_restart_pods": {"type": "bool", "default": False},
    "allow_abort_shared_io": {"type": "bool", "default": False},
    "allow_force_delete": {"type": "bool", "default": False},
    "protected_namespaces": {"type": "list", "elements": "str", "default": []},
}
ALLOW = ("allow_restart_pods", "allow_abort_shared_io", "allow_force_delete")
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
        return _option(mount, "addr") or str(mount.get("server") or mount["source"])

    def server_answers(self, mount: Mapping[str, Any]) -> bool | None:
        """None: nobody asked it."""
        address, port = _option(mount, "addr"), int(_option(mount, "port") or _NFS_PORT)
        for server in self.servers:
            if (server["address"], int(server["port"])) == (address, port):
                return bool(server["answers"])
        return None


def _option(mount: Mapping[str, Any], name: str) -> str | None:
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


@dataclass
class _Findings:
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


def load_hosts(path: str) -> list[Host]:
    """Read what the playbook kept of the hosts, a line of JSON each. Raises ValueError that names the line."""
    found = []
    with Path(path).open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, 1):
            try:
                data = json.loads(line)
                host = Host(
                    **{
                        key: data[key]
                        for key in ("name", "address", "problem", "mounts", "servers", "automounts", "wanted")
                    }
                )
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


def plan(hosts: Sequence[Host], cluster: PodSet, request: Mapping[str, Any]) -> dict[str, Any]:
    """The same input gives the same plan, whatever its order. Raises ValueError for a time that is none."""
    allowed = {name: bool(request.get(name)) for name in ALLOW}
    protected = cluster.protected | frozenset(request.get("protected_namespaces") or [])
    now = -(seconds_since(cluster.listed_at, 0.0) or 0.0)
    if not now:
        raise ValueError(f"listed_at: {cluster.listed_at!r} is no time")
    hosts = sorted(hosts, key=lambda one: one.name)
    found = _Findings()
    nodes: dict[str, str] = {}  # node that a host stands for -> host
    for host in hosts:
        decider = _Decider(host, cluster, protected, now, allowed, found)
        if host.problem:
            continue
        if decider.node:
            nodes[decider.node] = host.name
        decider.decide()
    _name_silent_nodes(hosts, nodes, cluster, now, found)
    return _plan.make(
        "recover",
        cluster_uid=cluster.cluster_uid,
        listed_at=cluster.listed_at,
        request=allowed,
        steps=found.steps,
        refusals=found.refusals,
        unchanged=sum(1 for host in hosts for mount in host.mounts if mount["health"] == "ok"),
        more={
            "notes": sorted(found.notes, key=lambda one: (one["host"], one["item"], one["reason"])),
            "pods": sorted(found.pods, key=lambda one: (one["host"], one["namespace"], one["name"])),
            "hosts": [{"name": host.name, "problem": host.problem} for host in hosts],
        },
    )


def _name_silent_nodes(
    hosts: Sequence[Host], nodes: Mapping[str, str], cluster: PodSet, now: float, found: _Findings
) -> None:
    known = {one["name"]: one for one in cluster.nodes}
    stuck: dict[str, list[str]] = {}
    for pod in cluster.pods:
        if is_ending(pod, now) and _pods.uses_nfs(pod) and pod["node"] and pod["node"] not in nodes:
            stuck.setdefault(pod["node"], []).append(name_of(pod))
    silent = {host.name: host.problem for host in hosts if host.problem}
    for name in sorted(set(stuck) | set(silent)):
        node = known.get(name) or {}
        problem = silent.get(name) or "no host of the inventory answers for it"
        ready = "" if node.get("ready", True) else f"; the API says that it is not ready since {node.get('since')}"
        pods = ", ".join(sorted(stuck.get(name, [])))
        left = (
            f"; its Terminating pods are left alone: {pods}. If the machine is off for good, give the node the taint "
            "node.kubernetes.io/out-of-service"
        )
        found.refuse(name if name in silent else "", name, f"does not answer ({problem}){ready}{left if pods else ''}")


class _Decider:
    """Decides for one host."""

    def __init__(
        self,
        host: Host,
        cluster: PodSet,
        protected: frozenset[str],
        now: float,
        allowed: Mapping[str, bool],
        found: _Findings,
    ) -> None:
        self.host = host
        self._protected = protected
        self._now = now
        self._allowed = allowed
        self._found = found
        self._by_uid = {pod["uid"]: pod for pod in cluster.pods}
        self._by_uid |= {pod["static_uid"]: pod for pod in cluster.pods if pod["static_uid"]}
        # A host that mounts for a pod of this cluster belongs to it. Without that a kubeconfig of another cluster would
        # make every pod look as if it were gone.
        self._evidence = [
            self._by_uid[mount["pod"]["uid"]]["node"]
            for mount in host.mounts
            if mount.get("pod") and mount["pod"]["uid"] in self._by_uid
        ]
        self.node = self._node(cluster)
        self._mounts = sorted(host.mounts, key=lambda one: (one["path"], one["mount_id"]))
        self._users = {one["mount_id"]: self._user_of(one) for one in self._mounts}
        self._superblocks: dict[str, list[Mapping[str, Any]]] = {}
        for one in self._mounts:
            self._superblocks.setdefault(one["major_minor"], []).append(one)

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
        pod = self._by_uid.get(uid)
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

    # Decisions -------------------------------------------------------------------------------------

    def decide(self) -> None:
        for mount in self._mounts:
            answers = self.host.server_answers(mount)
            if mount["health"] == "stale":
                self._stale(mount)
            elif answers is False:
                self._away(mount)
            elif mount["health"] != "ok":
                self._slow(mount, answers)
        self._missing()
        self._pods_without_mounts()
        self._force_delete()

    def _item(self, mount: Mapping[str, Any]) -> str:
        return f"{self.host.name}:{mount['path']}"

    def _slow(self, mount: Mapping[str, Any], answers: bool | None) -> None:
        why = (
            "its server answers again: after a restart clients wait for up to 90 s; look again then"
            if answers
            else "nobody knows whether its server is there, so nothing is forced"
        )
        self._found.note(
            self.host.name, self._item(mount), f"{mount['source']} is {mount['health']}; {why}; {self._for(mount)}"
        )
        user = self._users[mount["mount_id"]]
        if user.pod and user.is_over:
            self._await(user, expected=False)

    def _for(self, mount: Mapping[str, Any]) -> str:
        return f"it is mounted for {self._users[mount['mount_id']].text}"

    def _away(self, mount: Mapping[str, Any]) -> None:
        """The server of this mount does not answer."""
        user, server, item = self._users[mount["mount_id"]], self.host.server_of(mount), self._item(mount)
        superblock = self._superblocks[mount["major_minor"]]
        if user.state in ("host", "running"):
            self._found.note(
                self.host.name, item, f"waits for the server {server} and goes on when it is back; {self._for(mount)}"
            )
            return
        if user.state in ("leaving", "unknown"):
            self._found.refuse(self.host.name, item, f"the server {server} does not answer; {self._for(mount)}")
            return
        if any(one["health"] == "ok" for one in superblock):
            self._found.refuse(
                self.host.name,
                item,
                f"the server {server} does not answer, but mounts from it do; look again; {self._for(mount)}",
            )
            return
        in_the_way = self._in_the_way(mount)
        if in_the_way:
            self._found.refuse(self.host.name, item, in_the_way)
            return
        others = self._others(mount)
        protected = sorted(
            {name_of(one.pod) for one in self._sharing(mount) if one.pod and one.pod["namespace"] in self._protected}
        )
        alone = not others
        abort = not protected and (alone or self._allowed["allow_abort_shared_io"])
        reason = f"the server {server} does not answer; {self._for(mount)}"
        if abort and alone:
            reason += "; nobody else shares its superblock"
        elif abort:
            reason += f"; allow_abort_shared_io: EIO also for {', '.join(others)}"
        self._unmount(mount, "abort" if abort else "lazy", reason)
        self._await(user, expected=abort)
        if abort:
            return
        if protected:
            why = f"its requests are not aborted, since the namespace of {', '.join(protected)} is protected"
        else:
            why = (
                f"its superblock is shared with {', '.join(others)}, and umount -f would give EIO to all of them "
                "(allow_abort_shared_io: true)"
            )
        self._found.refuse(
            self.host.name, item, f"{why}; {self._for(mount)}; it can end when the server {server} is back"
        )

    def _sharing(self, mount: Mapping[str, Any]) -> list[User]:
        return [self._users[one["mount_id"]] for one in self._superblocks[mount["major_minor"]]]

    def _others(self, mount: Mapping[str, Any]) -> list[str]:
        """Who shares the superblock of a mount and is not being killed."""
        found = {one.text for one in self._sharing(mount) if not one.is_over}
        known = {one["path"] for one in self._mounts}
        for one in self._superblocks[mount["major_minor"]]:
            found |= {f"{path}, of which nothing is known" for path in one.get("shares_superblock_with") or []
                      if path not in known}  # fmt: skip
        return sorted(found)

    def _in_the_way(self, mount: Mapping[str, Any]) -> str:
        """Why an unmount would hit something else; empty if not."""
        above = [one for one in self._mounts if one["parent_id"] == mount["mount_id"]]
        same = [one["path"] for one in above if one["path"] == mount["path"]]
        if same or mount.get("stacked"):
            return "several mounts lie on each other there; unmount them by hand"
        return f"has mounts below it ({', '.join(one['path'] for one in above)}); unmount those first" if above else ""

    def _stale(self, mount: Mapping[str, Any]) -> None:
        """The server answers, and does not know this directory any more."""
        user, item = self._users[mount["mount_id"]], self._item(mount)
        if user.state == "running" and user.pod:
            self._restart(user.pod, f"{mount['source']} at {mount['path']} is stale")
            return
        if user.state in ("leaving", "unknown"):
            self._found.refuse(self.host.name, item, f"is stale; {self._for(mount)}")
            return
        in_the_way = self._in_the_way(mount)
        if in_the_way:
            self._found.refuse(self.host.name, item, f"is stale, but {in_the_way}")
            return
        if user.state == "host":
            self._remount(mount)
            return
        self._unmount(mount, "lazy", f"is stale: nothing can be written through it any more; {self._for(mount)}")
        self._await(user, expected=True)

    # Steps -----------------------------------------------------------------------------------------

    def _step(self, mount: Mapping[str, Any], **more: Any) -> None:
        precondition = {"mount_id": mount["mount_id"], "major_minor": mount["major_minor"]}
        self._found.steps.append(
            {
                "item": self._item(mount),
                "host": self.host.name,
                "module": "nfs_recover",
                "path": mount["path"],
                "source": mount["source"],
                "before": f"{mount['health']}, {mount['source']}",
                **more,
                "precondition": {**precondition, **more.get("precondition", {})},
            }
        )

    def _unmount(self, mount: Mapping[str, Any], mode: str, reason: str) -> None:
        more: dict[str, Any] = {}
        if mode == "abort":
            superblock = self._superblocks[mount["major_minor"]]
            # Whoever has come to this superblock since then is not hit: then the step is stale.
            more["precondition"] = {"superblock": sorted(one["mount_id"] for one in superblock)}
            more["pods"] = sorted({uid for one in self._sharing(mount) if one.is_over for uid in one.uids})
            more["also"] = sorted({uid for one in self._sharing(mount) if not one.is_over for uid in one.uids})
        after = "aborted, unmounted" if mode == "abort" else "unmounted lazily"
        self._step(mount, action=mode, after=after, reason=reason, **more)

    def _remount(self, mount: Mapping[str, Any]) -> None:
        trigger = self.host.has_trigger(mount)
        self._step(
            mount,
            action="remount",
            options=[*mount.get("options", []), *mount["super_options"]],
            trigger=trigger,
            after="unmounted, its automount is armed" if trigger else "mounted anew",
            reason="the server knows its directory no more; the new mount is tried before the old one goes",
        )
        for pod in self._pods_here():
            for volume in pod["volumes"]:
                if volume["kind"] != "hostPath" or pod["deleting"]:
                    continue
                if is_within(volume["source"], mount["path"]) or is_within(mount["path"], volume["source"]):
                    self._restart(pod, f"{volume['source']} (hostPath) is stale")

    def _missing(self) -> None:
        """Mounts and automounts of the inventory that the outage, or somebody in it, took away."""
        there = {one["path"] for one in (*self._mounts, *self.host.automounts)}
        silent = [one for one in self._mounts if self.host.server_answers(one) is False]
        away = {name for one in silent for name in (one.get("server"), _option(one, "addr"))}
        for wanted in self.host.wanted:
            path = posixpath.normpath(wanted["path"])
            if (wanted.get("state") or "mounted") != "mounted" or path in there:
                continue
            server = wanted.get("server") or (split_source(str(wanted.get("src"))) or ("",))[0]
            if server in away:
                self._found.refuse(
                    self.host.name,
                    f"{self.host.name}:{path}",
                    f"is not mounted, and the server {server} does not answer",
                )
                continue
            armed = wanted.get("automount") or "x-systemd.automount" in str(wanted.get("options"))
            self._found.steps.append(
                {
                    "item": f"{self.host.name}:{path}",
                    "host": self.host.name,
                    "module": "nfs_mounts",
                    "action": "mount",
                    "path": wanted["path"],
                    "precondition": {"mounted": "nothing"},
                    "before": "not mounted",
                    "after": "automount armed" if armed else "mounted",
                    "reason": "nfs_client_mounts of the inventory says so",
                }
            )

    def _pods_here(self) -> list[Record]:
        pods = [one for one in self._by_uid.values() if self.node and one["node"] == self.node]
        return sorted({one["uid"]: one for one in pods}.values(), key=lambda one: (one["namespace"], one["name"]))

    def _restart(self, pod: Record, why: str) -> None:
        """A stale handle inside a running container is cured by a new container only."""
        if pod["uid"] in self._found.handled:
            return
        self._found.handled.add(pod["uid"])
        item = name_of(pod)
        if not pod["owner"]:
            self._found.refuse(self.host.name, item, f"{why}; nobody would make the pod again: make it again by hand")
        elif pod["namespace"] in self._protected:
            self._found.refuse(
                self.host.name, item, f"{why}; {pod['owner']} must make it again, but its namespace is protected"
            )
        elif not self._allowed["allow_restart_pods"]:
            self._found.refuse(
                self.host.name, item, f"{why}; {pod['owner']} makes it again with allow_restart_pods: true"
            )
        else:
            self._pod_step(pod, "restart", f"made again by {pod['owner']}", why)

    def _pod_step(self, pod: Record, action: str, after: str, reason: str) -> None:
        since = f"Terminating since {pod['deleting']}" if pod["deleting"] else pod["phase"]
        self._found.steps.append(
            {
                "item": name_of(pod),
                "host": self.host.name,
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

    # Pods that kubelet is to remove ------------------------------------------------------------------

    def _await(self, user: User, *, expected: bool) -> None:
        """C(expected): nothing but kubelet is in its way once the steps are done."""
        pod = user.pod
        if pod is None:
            return
        for one in self._found.pods:
            if one["uid"] == pod["uid"]:
                one["expected"] = one["expected"] and expected
                return
        self._found.pods.append(
            {
                "host": self.host.name,
                "namespace": pod["namespace"],
                "name": pod["name"],
                "uid": pod["uid"],
                "since": pod["deleting"],
                "expected": expected and not pod["finalizers"],
            }
        )
        if pod["finalizers"]:
            self._found.refuse(
                self.host.name, name_of(pod), f"has finalizers, which are not ours: {', '.join(pod['finalizers'])}"
            )

    def _pods_without_mounts(self) -> None:
        """Terminating pods whose NFS volumes are fine, or unmounted already."""
        mounted: dict[str, list[Mapping[str, Any]]] = {}
        for mount in self._mounts:
            user = self._users[mount["mount_id"]]
            if user.pod:
                mounted.setdefault(user.pod["uid"], []).append(mount)
        for pod in self._pods_here():
            if not is_ending(pod, self._now) or not (_pods.uses_nfs(pod) or pod["uid"] in mounted):
                continue
            here = mounted.get(pod["uid"], [])
            if any(one["health"] != "ok" or self.host.server_answers(one) is False for one in here):
                continue
            why = "its volumes are fine" if here else "its volumes are unmounted"
            self._found.note(
                self.host.name,
                name_of(pod),
                f"Terminating since {pod['deleting']}; {why}: kubelet is to remove it",
            )
            self._await(User("ending", "", pod), expected=True)

    def _force_delete(self) -> None:
        if not self._allowed["allow_force_delete"]:
            return
        stays = {one["item"] for one in self._found.refusals}
        unmounted = {step["item"] for step in self._found.steps if step.get("action") in ("lazy", "abort")}
        for entry in [one for one in self._found.pods if one["host"] == self.host.name]:
            pod = self._by_uid[entry["uid"]]
            left = [
                one["path"]
                for one in self._mounts
                if (self._users[one["mount_id"]].pod or {}).get("uid") == pod["uid"]
                and self._item(one) not in unmounted
            ]
            item = name_of(pod)
            if pod["namespace"] in self._protected:
                self._found.refuse(self.host.name, item, "is not deleted by force: its namespace is protected")
            elif left:
                self._found.refuse(
                    self.host.name, item, f"is not deleted by force: still mounted for it: {', '.join(left)}"
                )
            elif item not in stays:
                self._pod_step(
                    pod,
                    "force_delete",
                    "deleted by force",
                    "if kubelet has not removed it in time, and the node confirms that neither mount nor process of it "
                    "is left",
                )
