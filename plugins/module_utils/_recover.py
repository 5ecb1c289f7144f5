# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to be done on nodes and with pods after an outage of an NFS server: pure decisions.

A writer that waits for its server is freed by nothing but the server, or by C(umount -f), which ends all requests of a
superblock with EIO: those of every mount with the same major:minor. So it is used where every mount of the superblock
belongs to a pod that is being killed anyhow. C(umount -l) takes a mount out of kubelet's way and loses nothing: what
is open stays open, and is written when the server is back.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _plan, _pods
from ansible_collections.clusterkit.storage.plugins.module_utils._mounts import is_within, split_source
from ansible_collections.clusterkit.storage.plugins.module_utils._pods import PodSet, Record, is_ending, name_of
from ansible_collections.clusterkit.storage.plugins.module_utils._recover_facts import Host, Situation, User, option_of
from ansible_collections.clusterkit.storage.plugins.module_utils._recover_steps import Findings, item_of
from ansible_collections.clusterkit.storage.plugins.module_utils._times import seconds_since

ARGUMENTS: dict[str, Any] = {
    "nodes": {"type": "path", "required": True},
    "allow_restart_pods": {"type": "bool", "default": False},
    "allow_abort_shared_io": {"type": "bool", "default": False},
    "allow_force_delete": {"type": "bool", "default": False},
    "protected_namespaces": {"type": "list", "elements": "str", "default": []},
}
ALLOW = ("allow_restart_pods", "allow_abort_shared_io", "allow_force_delete")


def plan(hosts: Sequence[Host], cluster: PodSet, request: Mapping[str, Any]) -> dict[str, Any]:
    """The same input gives the same plan, whatever its order. Raises ValueError for a time that is none."""
    allowed = {name: bool(request.get(name)) for name in ALLOW}
    protected = cluster.protected | frozenset(request.get("protected_namespaces") or [])
    now = -(seconds_since(cluster.listed_at, 0.0) or 0.0)
    if not now:
        raise ValueError(f"listed_at: {cluster.listed_at!r} is no time")
    hosts = sorted(hosts, key=lambda one: one.name)
    found = Findings()
    nodes: dict[str, str] = {}  # node that a host stands for -> host
    for host in hosts:
        if host.problem:
            continue
        situation = Situation(host, cluster, now)
        if situation.node:
            nodes[situation.node] = host.name
        _Decider(situation, protected, now, allowed, found).decide()
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
    hosts: Sequence[Host], nodes: Mapping[str, str], cluster: PodSet, now: float, found: Findings
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
        situation: Situation,
        protected: frozenset[str],
        now: float,
        allowed: Mapping[str, bool],
        found: Findings,
    ) -> None:
        self._situation = situation
        self._host = situation.host
        self._protected = protected
        self._now = now
        self._allowed = allowed
        self._found = found

    # Decisions -------------------------------------------------------------------------------------

    def decide(self) -> None:
        for mount in self._situation.mounts:
            answers = self._host.server_answers(mount)
            if mount["health"] == "stale":
                self._stale(mount)
            elif answers is False:
                self._away(mount)
            elif mount["health"] != "ok":
                self._slow(mount, answers)
        self._missing()
        self._pods_without_mounts()
        self._force_delete()

    def _slow(self, mount: Mapping[str, Any], answers: bool | None) -> None:
        why = (
            "its server answers again: after a restart clients wait for up to 90 s; look again then"
            if answers
            else "nobody knows whether its server is there, so nothing is forced"
        )
        self._found.note(
            self._host.name,
            item_of(self._host.name, mount["path"]),
            f"{mount['source']} is {mount['health']}; {why}; {self._for(mount)}",
        )
        user = self._situation.users[mount["mount_id"]]
        if user.pod and user.is_over:
            self._await(user, expected=False)

    def _for(self, mount: Mapping[str, Any]) -> str:
        return f"it is mounted for {self._situation.users[mount['mount_id']].text}"

    def _away(self, mount: Mapping[str, Any]) -> None:
        """The server of this mount does not answer."""
        user, item = self._situation.users[mount["mount_id"]], item_of(self._host.name, mount["path"])
        server = self._host.server_of(mount)
        superblock = self._situation.superblocks[mount["major_minor"]]
        if user.state in ("host", "running"):
            self._found.note(
                self._host.name, item, f"waits for the server {server} and goes on when it is back; {self._for(mount)}"
            )
            return
        if user.state in ("leaving", "unknown"):
            self._found.refuse(self._host.name, item, f"the server {server} does not answer; {self._for(mount)}")
            return
        if any(one["health"] == "ok" for one in superblock):
            self._found.refuse(
                self._host.name,
                item,
                f"the server {server} does not answer, but mounts from it do; look again; {self._for(mount)}",
            )
            return
        in_the_way = self._situation.in_the_way(mount)
        if in_the_way:
            self._found.refuse(self._host.name, item, in_the_way)
            return
        others, sharing = self._situation.others(mount), self._situation.sharing(mount)
        protected = sorted({name_of(one.pod) for one in sharing if one.pod and one.pod["namespace"] in self._protected})
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
            self._host.name, item, f"{why}; {self._for(mount)}; it can end when the server {server} is back"
        )

    def _stale(self, mount: Mapping[str, Any]) -> None:
        """The server answers, and does not know this directory any more."""
        user, item = self._situation.users[mount["mount_id"]], item_of(self._host.name, mount["path"])
        if user.state == "running" and user.pod:
            self._restart(user.pod, f"{mount['source']} at {mount['path']} is stale")
            return
        if user.state in ("leaving", "unknown"):
            self._found.refuse(self._host.name, item, f"is stale; {self._for(mount)}")
            return
        in_the_way = self._situation.in_the_way(mount)
        if in_the_way:
            self._found.refuse(self._host.name, item, f"is stale, but {in_the_way}")
            return
        if user.state == "host":
            self._remount(mount)
            return
        self._unmount(mount, "lazy", f"is stale: nothing can be written through it any more; {self._for(mount)}")
        self._await(user, expected=True)

    # Steps -----------------------------------------------------------------------------------------

    def _unmount(self, mount: Mapping[str, Any], mode: str, reason: str) -> None:
        more: dict[str, Any] = {}
        if mode == "abort":
            superblock, sharing = self._situation.superblocks[mount["major_minor"]], self._situation.sharing(mount)
            # Whoever has come to this superblock since then is not hit: then the step is stale.
            more["precondition"] = {"superblock": sorted(one["mount_id"] for one in superblock)}
            more["pods"] = sorted({uid for one in sharing if one.is_over for uid in one.uids})
            more["also"] = sorted({uid for one in sharing if not one.is_over for uid in one.uids})
        after = "aborted, unmounted" if mode == "abort" else "unmounted lazily"
        self._found.mount_step(self._host.name, mount, action=mode, after=after, reason=reason, **more)

    def _remount(self, mount: Mapping[str, Any]) -> None:
        trigger = self._host.has_trigger(mount)
        self._found.mount_step(
            self._host.name,
            mount,
            action="remount",
            options=[*mount.get("options", []), *mount["super_options"]],
            trigger=trigger,
            after="unmounted, its automount is armed" if trigger else "mounted anew",
            reason="the server knows its directory no more; the new mount is tried before the old one goes",
        )
        for pod in self._situation.pods_here():
            for volume in pod["volumes"]:
                if volume["kind"] != "hostPath" or pod["deleting"]:
                    continue
                if is_within(volume["source"], mount["path"]) or is_within(mount["path"], volume["source"]):
                    self._restart(pod, f"{volume['source']} (hostPath) is stale")

    def _missing(self) -> None:
        """Mounts and automounts of the inventory that the outage, or somebody in it, took away."""
        there = {one["path"] for one in (*self._situation.mounts, *self._host.automounts)}
        silent = [one for one in self._situation.mounts if self._host.server_answers(one) is False]
        away = {name for one in silent for name in (one.get("server"), option_of(one, "addr"))}
        for wanted in self._host.wanted:
            path = posixpath.normpath(wanted["path"])
            if (wanted.get("state") or "mounted") != "mounted" or path in there:
                continue
            server = wanted.get("server") or (split_source(str(wanted.get("src"))) or ("",))[0]
            if server in away:
                self._found.refuse(
                    self._host.name,
                    item_of(self._host.name, path),
                    f"is not mounted, and the server {server} does not answer",
                )
                continue
            self._found.missing_step(self._host.name, wanted, path)

    def _restart(self, pod: Record, why: str) -> None:
        """A stale handle inside a running container is cured by a new container only."""
        if pod["uid"] in self._found.handled:
            return
        self._found.handled.add(pod["uid"])
        item = name_of(pod)
        if not pod["owner"]:
            self._found.refuse(self._host.name, item, f"{why}; nobody would make the pod again: make it again by hand")
        elif pod["namespace"] in self._protected:
            self._found.refuse(
                self._host.name, item, f"{why}; {pod['owner']} must make it again, but its namespace is protected"
            )
        elif not self._allowed["allow_restart_pods"]:
            self._found.refuse(
                self._host.name, item, f"{why}; {pod['owner']} makes it again with allow_restart_pods: true"
            )
        else:
            self._found.pod_step(self._host.name, pod, "restart", f"made again by {pod['owner']}", why)

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
                "host": self._host.name,
                "namespace": pod["namespace"],
                "name": pod["name"],
                "uid": pod["uid"],
                "since": pod["deleting"],
                "expected": expected and not pod["finalizers"],
            }
        )
        if pod["finalizers"]:
            self._found.refuse(
                self._host.name, name_of(pod), f"has finalizers, which are not ours: {', '.join(pod['finalizers'])}"
            )

    def _pods_without_mounts(self) -> None:
        """Terminating pods whose NFS volumes are fine, or unmounted already."""
        mounted: dict[str, list[Mapping[str, Any]]] = {}
        for mount in self._situation.mounts:
            user = self._situation.users[mount["mount_id"]]
            if user.pod:
                mounted.setdefault(user.pod["uid"], []).append(mount)
        for pod in self._situation.pods_here():
            if not is_ending(pod, self._now) or not (_pods.uses_nfs(pod) or pod["uid"] in mounted):
                continue
            here = mounted.get(pod["uid"], [])
            if any(one["health"] != "ok" or self._host.server_answers(one) is False for one in here):
                continue
            why = "its volumes are fine" if here else "its volumes are unmounted"
            self._found.note(
                self._host.name,
                name_of(pod),
                f"Terminating since {pod['deleting']}; {why}: kubelet is to remove it",
            )
            self._await(User("ending", "", pod), expected=True)

    def _force_delete(self) -> None:
        if not self._allowed["allow_force_delete"]:
            return
        stays = {one["item"] for one in self._found.refusals}
        unmounted = {step["item"] for step in self._found.steps if step.get("action") in ("lazy", "abort")}
        for entry in [one for one in self._found.pods if one["host"] == self._host.name]:
            pod = self._situation.by_uid[entry["uid"]]
            left = [
                one["path"]
                for one in self._situation.mounts
                if (self._situation.users[one["mount_id"]].pod or {}).get("uid") == pod["uid"]
                and item_of(self._host.name, one["path"]) not in unmounted
            ]
            item = name_of(pod)
            if pod["namespace"] in self._protected:
                self._found.refuse(self._host.name, item, "is not deleted by force: its namespace is protected")
            elif left:
                self._found.refuse(
                    self._host.name, item, f"is not deleted by force: still mounted for it: {', '.join(left)}"
                )
            elif item not in stays:
                self._found.pod_step(
                    self._host.name,
                    pod,
                    "force_delete",
                    "deleted by force",
                    "if kubelet has not removed it in time, and the node confirms that neither mount nor process of it "
                    "is left",
                )
