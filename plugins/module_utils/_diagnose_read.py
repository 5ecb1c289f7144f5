# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading from the API what a diagnosis looks at. What may not be read is named, with the answers that it costs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _diagnose_provisioners, _volume_set
from ansible_collections.clusterkit.storage.plugins.module_utils._api_answers import ApiError, path_of
from ansible_collections.clusterkit.storage.plugins.module_utils._diagnose_facts import Facts, sources_of
from ansible_collections.clusterkit.storage.plugins.module_utils._diagnose_objects import (
    NO_PROVISIONER,
    Object,
    class_of,
    entries,
    get,
    is_deleting,
    mapping,
    name_of,
    namespace_of,
    number,
    phase_of,
    statuses_of,
    text,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._diagnose_volumes import provisioner_of

if TYPE_CHECKING:
    from ansible_collections.clusterkit.storage.plugins.module_utils._api import Api

# Logs are read of pods in trouble only, and of so many at most.
LOGS = 40
_LOG = {"tailLines": "100", "limitBytes": "65536"}
_REASONS = {
    "FailedMount", "FailedAttachVolume", "FailedScheduling", "Failed", "FailedCreate", "ProvisioningFailed",
    "VolumeFailedDelete", "VolumeFailedRecycle", "RecyclerPod", "ClaimLost", "ClaimMisbound",
}  # fmt: skip
# Without these no provisioner that is made with sig-storage-lib-external-provisioner makes a volume.
_RIGHTS = [
    (verb, group, resource)
    for group, resource, verbs in (
        ("", "persistentvolumes", ("list", "watch", "create")),
        ("", "persistentvolumeclaims", ("list", "watch")),
        ("storage.k8s.io", "storageclasses", ("list", "watch")),
    )
    for verb in verbs
]
# It takes one of these locks, in its own namespace.
_LOCKS = (("", "endpoints"), ("coordination.k8s.io", "leases"))


@dataclass(frozen=True)
class Kind:
    """A collection, what is kept of its objects, and the answers that are lost without it."""

    resource: str
    group: str
    namespaced: bool
    costs: str
    keep: Callable[[dict[str, Any]], Any]
    query: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """As in kubectl: C(deployments.apps)."""
        group = self.group.partition("/")[0]
        return f"{self.resource}.{group}" if group else self.resource


@dataclass
class Unavailable:
    """What could not be read, each once."""

    entries: list[dict[str, str]] = field(default_factory=list)

    def add(self, verb: str, resource: str, costs: str, error: ApiError) -> None:
        entry = {"verb": verb, "resource": resource, "costs": costs, "reason": str(error)}
        if not any((one["verb"], one["resource"]) == (verb, resource) for one in self.entries):
            self.entries.append(entry)


def _whole(item: dict[str, Any]) -> dict[str, Any]:
    get(item, "metadata").pop("managedFields", None)
    return item


def pod_record(item: Mapping[str, Any]) -> dict[str, Any]:
    """Of pods there are the most: of those that run well only what they use is kept."""
    metadata, spec, status = item["metadata"], item.get("spec") or {}, item.get("status") or {}
    statuses = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    quiet = (
        status.get("phase") in ("Running", "Succeeded")
        and not metadata.get("deletionTimestamp")
        and all((one.get("state") or {}).keys() <= {"running", "terminated"} for one in statuses)
        and not any(one.get("restartCount") for one in statuses)
    )
    kept_spec = ("volumes", "nodeName") if quiet else ("volumes", "nodeName", "nodeSelector", "securityContext")
    kept_metadata = ("name", "namespace", "uid", "labels", "deletionTimestamp", "creationTimestamp", "finalizers")
    containers = {
        which: [
            {key: one[key] for key in ("name", "image", "securityContext", "volumeMounts") if key in one}
            for one in spec.get(which) or []
        ]
        for which in ("initContainers", "containers")
        if not quiet
    }
    kept_status = ("phase",) if quiet else ("phase", "conditions", "initContainerStatuses", "containerStatuses")
    return {
        "metadata": {key: metadata[key] for key in kept_metadata if metadata.get(key)},
        "spec": {**{key: spec[key] for key in kept_spec if spec.get(key)}, **containers},
        "status": {key: status[key] for key in kept_status if status.get(key)},
    }


def _event(item: dict[str, Any]) -> dict[str, Any] | None:
    if item.get("reason") not in _REASONS:
        return None
    kept = ("involvedObject", "reason", "message", "lastTimestamp", "eventTime", "series")
    return {key: item[key] for key in kept if key in item}


KINDS: dict[str, Kind] = {
    "claims": Kind("persistentvolumeclaims", "", True, "everything about claims, and about the claims of pods", _whole),
    "volumes": Kind("persistentvolumes", "", False, "everything about volumes, and which of them fit a claim", _whole),
    "classes": Kind(
        "storageclasses", "storage.k8s.io/v1", False, "which class and provisioner a claim waits for", _whole
    ),
    "pods": Kind("pods", "", True, "everything about pods, and about the endpoints of Services", pod_record),
    "events": Kind(
        "events", "", True, "why a volume cannot be mounted, made, deleted or recycled", _event,
        {"fieldSelector": "type=Warning"},
    ),
    "deployments": Kind("deployments", "apps/v1", True, "what became of a provisioner that does not run", _whole),
    "statefulsets": Kind("statefulsets", "apps/v1", True, "what became of a provisioner that does not run", _whole),
    "services": Kind("services", "", True, "Services without endpoints", _whole),
    "slices": Kind("endpointslices", "discovery.k8s.io/v1", True, "Services without endpoints", _whole),
    "nodes": Kind("nodes", "", False, "labels that no node has, and nodes that are gone", _whole),
    "ingresses": Kind("ingresses", "networking.k8s.io/v1", True, "removed API versions of Ingresses", _whole),
}  # fmt: skip


def read(api: Api, namespace: str = "") -> tuple[Facts, Unavailable]:
    """Raises ApiError, but not for what this user may not read."""
    unavailable, facts = Unavailable(), Facts()

    def listed(name: str) -> tuple[str, Any, float]:
        return (name, *_list(api, KINDS[name], namespace, unavailable))

    for name, items, date in api.each(listed, KINDS):
        setattr(facts, name, items)
        facts.now = max(facts.now, date)
    unavailable.entries.sort(key=lambda one: (one["verb"], one["resource"]))
    facts.groups, facts.minor = _versions(api, unavailable)
    awaited = awaited_provisioners(facts)
    facts.provisioners = _states(api, awaited | removing_provisioners(facts), unavailable)
    facts.denied = {
        name: denied for name in sorted(awaited) for denied in [_denied(api, name, facts, unavailable)] if denied
    }
    facts.logs = _logs(api, facts, awaited, unavailable)
    return facts, unavailable


def _list(api: Api, kind: Kind, namespace: str, unavailable: Unavailable) -> tuple[list[Any] | None, float]:
    """Of the whole cluster if that is allowed, since provisioners and claims may be anywhere; else of the namespace."""
    try:
        listing = api.list_all(path_of(kind.resource, group=kind.group), kind.keep, kind.query)
        return listing.items, listing.date
    except ApiError as error:
        if error.status != 403:
            raise
        unavailable.add("list", kind.title, kind.costs, error)
    if not namespace or not kind.namespaced:
        return None, 0.0
    try:
        listing = api.list_all(path_of(kind.resource, namespace=namespace, group=kind.group), kind.keep, kind.query)
    except ApiError as error:
        if error.status != 403:
            raise
        return None, 0.0
    entry = next(one for one in unavailable.entries if one["resource"] == kind.title)
    entry["costs"] = f"in namespaces other than {namespace}: {kind.costs}"
    return listing.items, listing.date


def _versions(api: Api, unavailable: Unavailable) -> tuple[dict[str, list[str]] | None, int]:
    """Every user may read these (system:discovery), unless somebody took that away."""
    try:
        groups = {text(one, "name"): one for one in entries(api.get("/apis"), "groups")}
        minor = re.match(r"\d+", text(api.get("/version"), "minor"))
    except ApiError as error:
        if error.status != 403:
            raise
        unavailable.add("get", "/apis", "API versions that are not served", error)
        return None, 0
    versions = {name: [text(each, "version") for each in entries(one, "versions")] for name, one in groups.items()}
    return {"": ["v1"], **versions}, int(minor[0]) if minor else 0


# Provisioners --------------------------------------------------------------------------------------------


def awaited_provisioners(facts: Facts) -> set[str]:
    """Those that claims wait for."""
    classes = {
        class_of(one) or ""
        for one in facts.claims or ()
        if phase_of(one) == "Pending" and not text(one, "spec", "volumeName")
    }
    names = {text(facts.class_by_name.get(one), "provisioner") for one in classes}
    return names - {"", NO_PROVISIONER}


def removing_provisioners(facts: Facts) -> set[str]:
    """Those that are to remove volumes."""
    names = {
        provisioner_of(one) or text(one, "spec", "csi", "driver")
        for one in facts.volumes or ()
        if phase_of(one) == "Released" or is_deleting(one)
    }
    return names - {""}


def _states(api: Api, names: Iterable[str], unavailable: Unavailable) -> dict[str, str] | None:
    try:
        return _volume_set.provisioner_states(api, names)
    except ApiError as error:
        if error.status != 403:
            raise
        resource = re.match(r"list ([\w./-]+)", str(error))
        title = resource[1] if resource else "leases"
        group = {"leases": ".coordination.k8s.io", "deployments": ".apps", "statefulsets": ".apps"}.get(title, "")
        unavailable.add("list", title + group, "whether a provisioner runs", error)
        return None


def _denied(api: Api, provisioner: str, facts: Facts, unavailable: Unavailable) -> list[str]:
    """What the service account of the provisioner would need and may not do, by the API server's own judgement."""
    for controller in _diagnose_provisioners.controllers_of(provisioner, facts):
        namespace = namespace_of(controller)
        account = text(controller, "spec", "template", "spec", "serviceAccountName") or "default"

        def allowed(
            right: tuple[str, str, str], where: str = "", namespace: str = namespace, account: str = account
        ) -> bool:
            verb, group, resource = right
            attributes = {"verb": verb, "group": group, "resource": resource, "namespace": where}
            user = f"system:serviceaccount:{namespace}:{account}"
            groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
            body = {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SubjectAccessReview",
                "spec": {"user": user, "groups": groups, "resourceAttributes": attributes},
            }
            path = path_of("subjectaccessreviews", group="authorization.k8s.io/v1")
            return get(json.loads(api.ask("POST", path, body=body)), "status", "allowed") is True

        try:
            denied = [f"{verb} {resource}" for verb, group, resource in _RIGHTS if not allowed((verb, group, resource))]
            if not any(allowed(("update", group, resource), namespace) for group, resource in _LOCKS):
                denied.append("update endpoints")
            return denied
        except ApiError as error:
            costs = "missing rights of a provisioner, unless its log tells of them"
            unavailable.add("create", "subjectaccessreviews.authorization.k8s.io", costs, error)
            return []
    return []


# Logs ----------------------------------------------------------------------------------------------------


def _logs(api: Api, facts: Facts, awaited: set[str], unavailable: Unavailable) -> dict[tuple[str, str, str], str]:
    def read_log(wanted: tuple[str, str, str, bool]) -> str:
        namespace, pod, container, previous = wanted
        query = {"container": container, **_LOG, **({"previous": "true"} if previous else {})}
        try:
            return api.ask("GET", path_of("pods", pod, namespace, subresource="log"), query)
        except ApiError as error:
            unavailable.add("get", "pods/log", "what provisioners, and containers that fail, say themselves", error)
            return ""

    wanted = list(dict.fromkeys(_talkers(facts, awaited)))[:LOGS]
    found: dict[tuple[str, str, str], str] = {}
    for (namespace, pod, container, _previous), lines in zip(wanted, api.each(read_log, wanted)):
        found[namespace, pod, container] = found.get((namespace, pod, container), "") + lines
    return {key: lines for key, lines in found.items() if lines}


def _talkers(facts: Facts, awaited: set[str]) -> Iterable[tuple[str, str, str, bool]]:
    """Containers whose log may say what is wrong, and whether that of their last run is meant."""
    for name in sorted(awaited):
        for controller in _diagnose_provisioners.controllers_of(name, facts):
            for pod in _diagnose_provisioners.pods_of(controller, facts):
                for status in entries(pod, "status", "containerStatuses")[:3]:
                    yield from _runs(pod, status)
                if not entries(pod, "status", "containerStatuses"):
                    # One that runs well: its record has no more than its name.
                    for container in entries(controller, "spec", "template", "spec", "containers")[:3]:
                        yield namespace_of(pod), name_of(pod), text(container, "name"), False
    for pod in facts.pods or ():
        if any(True for _one in sources_of(pod, facts)):
            for status in statuses_of(pod):
                states = (mapping(status, "state"), mapping(status, "lastState"))
                if any(number(one, "terminated", "exitCode") for one in states):
                    yield from _runs(pod, status)


def _runs(pod: Object, status: Object) -> Iterable[tuple[str, str, str, bool]]:
    where = (namespace_of(pod), name_of(pod), text(status, "name"))
    if mapping(status, "state", "running") or mapping(status, "state", "terminated"):
        yield (*where, False)
    if mapping(status, "lastState", "terminated"):
        yield (*where, True)
