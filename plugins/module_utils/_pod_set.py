# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading the pods of a cluster from the API, and removing those that a plan names."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _pods, _volume_set
from ansible_collections.clusterkit.storage.plugins.module_utils._api_answers import ApiError, path_of
from ansible_collections.clusterkit.storage.plugins.module_utils._listing import timestamp
from ansible_collections.clusterkit.storage.plugins.module_utils._pods import PodSet, name_of
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import Volume

if TYPE_CHECKING:
    from ansible_collections.clusterkit.storage.plugins.module_utils._api import Api

PRECONDITION: dict[str, Any] = {
    "uid": {"type": "str", "required": True},
    "resource_version": {"type": "str"},
}
STEP: dict[str, Any] = {
    "id": {"type": "str"},
    "action": {"type": "str", "choices": ["restart", "force_delete"], "required": True},
    "namespace": {"type": "str", "required": True},
    "name": {"type": "str", "required": True},
    "precondition": {"type": "dict", "required": True, "options": PRECONDITION},
}
POD: dict[str, Any] = {
    "namespace": {"type": "str", "required": True},
    "name": {"type": "str", "required": True},
    "uid": {"type": "str", "required": True},
    "expected": {"type": "bool", "default": True},
}
LEFT: dict[str, Any] = {
    "uid": {"type": "str", "required": True},
    "mounts": {"type": "list", "elements": "str", "required": True},
    "processes": {"type": "list", "elements": "str", "required": True},
}
_POLL_SECONDS = 1.0


def read(api: Api) -> PodSet:
    """All pods that have a node. Raises ApiError."""
    uid = _volume_set.cluster_uid(api)
    claims: dict[tuple[str, str], str] = {}
    for volume in api.list_all(_volume_set.VOLUMES, Volume.of).items:
        if volume.claim and volume.server:
            claims[volume.claim[:2]] = f"{volume.server}:{volume.path}"

    def record(item: Mapping[str, Any]) -> dict[str, Any] | None:
        return _pods.pod_record(item, claims) if (item.get("spec") or {}).get("nodeName") else None

    nodes = api.list_all(path_of("nodes"), _pods.node_record).items
    protected = _volume_set.protected_namespaces(api)
    pods = api.list_all(path_of("pods"), record)
    return PodSet(uid, timestamp(pods.date), protected, nodes, pods.items)


def carry_out(
    api: Api, steps: Sequence[Mapping[str, Any]], left: Sequence[Mapping[str, Any]] = ()
) -> list[dict[str, Any]]:
    """Delete the pods of steps. By force only those of which C(left), told by their node, says that nothing is left."""
    told = {one["uid"]: one for one in left}

    def one(step: Mapping[str, Any]) -> dict[str, Any]:
        item = {"id": step.get("id"), "pod": name_of(step), "action": step["action"]}
        wanted, path = step["precondition"], path_of("pods", step["name"], step["namespace"])
        by_force = step["action"] == "force_delete"
        if by_force:
            reason = _why_not_by_force(told.get(wanted["uid"]))
            if reason:
                return {**item, "state": "refused", "reason": reason}
        try:
            api.delete(
                path,
                wanted["uid"],
                resource_version=wanted.get("resource_version"),
                grace_period=0 if by_force else None,
            )
        except ApiError as error:
            if error.gone:
                return {**item, "state": "gone", "reason": "does not exist any more"}
            if error.conflict:
                return {**item, "state": "stale", "reason": f"has changed since the plan was made: {error}"}
            return {**item, "state": "failed", "reason": str(error)}
        return {**item, "state": "done", "reason": ""}

    return api.each(one, steps)


def _why_not_by_force(left: Mapping[str, Any] | None) -> str:
    if left is None:
        return "its node has not confirmed that nothing of it is left"
    if left["mounts"]:
        return f"it is still mounted on its node: {', '.join(left['mounts'])}"
    if left["processes"]:
        return f"processes of it are left on its node: {', '.join(left['processes'])}"
    return ""


def wait_until_gone(api: Api, pods: Sequence[Mapping[str, Any]], seconds: float) -> list[dict[str, Any]]:
    """Wait until kubelet has removed those that are expected to go; tell of all whether they are gone."""
    deadline = time.monotonic() + seconds
    began = time.monotonic()
    items = {one["uid"]: {"pod": name_of(one), "uid": one["uid"], "removed": False, "seconds": None} for one in pods}
    left = list(pods)

    def is_there(pod: Mapping[str, Any]) -> bool:
        try:
            found = api.get(path_of("pods", pod["name"], pod["namespace"]))
        except ApiError as error:
            if error.gone:
                return False
            raise
        return bool(found["metadata"]["uid"] == pod["uid"])

    while True:
        there = api.each(is_there, left)
        for pod, is_left in zip(left, there):
            if not is_left:
                items[pod["uid"]] |= {"removed": True, "seconds": round(time.monotonic() - began, 1)}
        left = [pod for pod, is_left in zip(left, there) if is_left]
        if not any(pod["expected"] for pod in left) or time.monotonic() >= deadline:
            return list(items.values())
        time.sleep(min(_POLL_SECONDS, max(0.0, deadline - time.monotonic())))
