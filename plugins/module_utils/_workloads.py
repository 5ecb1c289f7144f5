# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who uses claims: pods, and the Deployments and StatefulSets that make them, which can be stopped for a while.

How many replicas a stopped one had is noted on the object itself, in the same request that stops it: a run that is
killed afterwards leaves behind what the next one needs to put it right.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _pods
from ansible_collections.clusterkit.storage.plugins.module_utils._api_answers import path_of

if TYPE_CHECKING:
    from ansible_collections.clusterkit.storage.plugins.module_utils._api import Api

STOPPED = "storage.clusterkit/stopped"  # annotation: {"replicas", "run", "at"}
APPS = "apps/v1"
KINDS = {"Deployment": "deployments", "StatefulSet": "statefulsets"}

Record = dict[str, Any]


def stopped(metadata: Mapping[str, Any]) -> Record | None:
    """What a run noted when it stopped the object; None for one that was not stopped, or by nobody we know."""
    try:
        found = json.loads((metadata.get("annotations") or {})[STOPPED])
        return {"replicas": int(found["replicas"]), "run": str(found["run"]), "at": str(found["at"])}
    except (KeyError, TypeError, ValueError):
        return None


def workload_record(kind: str, item: Mapping[str, Any]) -> Record:
    """Of a Deployment or StatefulSet as the API gives it."""
    metadata, spec = item["metadata"], item["spec"]
    templates = [f"{one['metadata']['name']}-{metadata['name']}-" for one in spec.get("volumeClaimTemplates") or []]
    return {
        "kind": kind,
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "replicas": int(spec.get("replicas", 1)),
        "stopped": stopped(metadata),
        "claims": _pods.claims_of(spec["template"]["spec"]),
        "claim_prefixes": templates,
    }


def user_record(item: Mapping[str, Any]) -> Record | None:
    """Of a pod that mounts claims, or is about to; None for any other."""
    metadata = item["metadata"]
    claims = _pods.claims_of(item.get("spec") or {}, metadata["name"])
    if not claims or (item.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return None
    kind, owner = _pods.controller_of(metadata) or ("", "")
    return {
        "kind": "Pod",
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "claims": claims,
        "owner": {"kind": kind, "name": owner} if kind else None,
        "uid": metadata["uid"],
        "running": (item.get("status") or {}).get("phase") == "Running",
        "deleting": metadata.get("deletionTimestamp"),
        "containers": [one["name"] for one in item["spec"].get("containers") or []],
        "writers": _pods.writers_of(item["spec"], metadata["name"]),
    }


def uses(workload: Mapping[str, Any], namespace: str, claim: str) -> bool:
    """Whether its pods mount the claim."""
    if workload["namespace"] != namespace:
        return False
    numbered = (claim[len(one) :] for one in workload["claim_prefixes"] if claim.startswith(one))
    return claim in workload["claims"] or any(rest.isdigit() for rest in numbered)


def read_users(api: Api, namespaces: Iterable[str] = ("",)) -> list[Record]:
    """Pods that mount claims, of these namespaces or of all. Raises ApiError."""
    return [
        one for namespace in namespaces for one in api.list_all(path_of("pods", namespace=namespace), user_record).items
    ]


def read_workloads(api: Api) -> list[Record]:
    """Deployments and StatefulSets whose pods mount claims, and those that a run has stopped. Raises ApiError."""
    found: list[Record] = []
    for kind, resource in KINDS.items():

        def record(item: Mapping[str, Any], kind: str = kind) -> Record | None:
            made = workload_record(kind, item)
            return made if made["claims"] or made["claim_prefixes"] or made["stopped"] else None

        found += api.list_all(path_of(resource, group=APPS), record).items
    return found


class Users:
    """Who uses which claim."""

    def __init__(self, pods: Iterable[Record], workloads: Iterable[Record]) -> None:
        self._pods = list(pods)
        self._workloads = list(workloads)

    def pods(self, namespace: str, claim: str) -> list[str]:
        return [_pods.name_of(one) for one in self._of(namespace, claim)]

    def writer(self, namespace: str, claim: str) -> Record | None:
        """The running pod in which commands for a claim are run: the first by name of those that may write to it.

        One that is about to end comes last.
        """
        writing = [one for one in self._of(namespace, claim) if one["running"] and claim in one["writers"]]
        return min(writing, key=lambda one: (bool(one["deleting"]), one["name"]), default=None)

    def to_stop(self, namespace: str, claim: str) -> tuple[list[Record], str]:
        """The workloads to stop so that nobody mounts the claim, and why that is not possible, if it is not."""
        workloads = [
            {"kind": one["kind"], "namespace": one["namespace"], "name": one["name"]}
            for one in self._workloads
            if uses(one, namespace, claim) and (one["replicas"] or one["stopped"])
        ]
        known = {(one["kind"], one["name"]) for one in workloads}
        for pod in self._of(namespace, claim):
            owner = pod["owner"] or {"kind": "", "name": ""}
            if (owner["kind"], owner["name"]) not in known:
                whose = f"belongs to {owner['kind']} {owner['name']}" if pod["owner"] else "belongs to nobody"
                return [], f"pod {_pods.name_of(pod)} mounts it and {whose}, which cannot be scaled to zero"
        return workloads, ""

    def _of(self, namespace: str, claim: str) -> Sequence[Record]:
        return [one for one in self._pods if one["namespace"] == namespace and claim in one["claims"]]
