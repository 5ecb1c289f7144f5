# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a Service has no endpoints, and why the API refuses a manifest: one function a cause, in order of the tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Optional

from ansible_collections.clusterkit.storage.plugins.module_utils._diagnose_facts import Facts, Finding, finding
from ansible_collections.clusterkit.storage.plugins.module_utils._diagnose_objects import (
    Object,
    entries,
    few,
    full_name,
    get,
    is_deleting,
    labels_in_words,
    mapping,
    name_of,
    namespace_of,
    number,
    selects,
    text,
)

APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_WITH_TEMPLATE = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet")
# Since which release a version of a kind is gone (Deprecated API Migration Guide of Kubernetes), and the next one.
REMOVED = {
    ("extensions/v1beta1", "Ingress"): ("1.22", "networking.k8s.io/v1"),
    ("networking.k8s.io/v1beta1", "Ingress"): ("1.22", "networking.k8s.io/v1"),
    ("networking.k8s.io/v1beta1", "IngressClass"): ("1.22", "networking.k8s.io/v1"),
    ("extensions/v1beta1", "Deployment"): ("1.16", "apps/v1"),
    ("extensions/v1beta1", "DaemonSet"): ("1.16", "apps/v1"),
    ("extensions/v1beta1", "ReplicaSet"): ("1.16", "apps/v1"),
    ("apps/v1beta1", "Deployment"): ("1.16", "apps/v1"),
    ("apps/v1beta1", "StatefulSet"): ("1.16", "apps/v1"),
    ("apps/v1beta2", "Deployment"): ("1.16", "apps/v1"),
    ("apps/v1beta2", "StatefulSet"): ("1.16", "apps/v1"),
    ("apps/v1beta2", "DaemonSet"): ("1.16", "apps/v1"),
    ("apps/v1beta2", "ReplicaSet"): ("1.16", "apps/v1"),
    ("storage.k8s.io/v1beta1", "StorageClass"): ("1.22", "storage.k8s.io/v1"),
    ("storage.k8s.io/v1beta1", "CSIDriver"): ("1.22", "storage.k8s.io/v1"),
    ("rbac.authorization.k8s.io/v1beta1", "ClusterRole"): ("1.22", "rbac.authorization.k8s.io/v1"),
    ("rbac.authorization.k8s.io/v1beta1", "ClusterRoleBinding"): ("1.22", "rbac.authorization.k8s.io/v1"),
    ("rbac.authorization.k8s.io/v1beta1", "Role"): ("1.22", "rbac.authorization.k8s.io/v1"),
    ("rbac.authorization.k8s.io/v1beta1", "RoleBinding"): ("1.22", "rbac.authorization.k8s.io/v1"),
    ("batch/v1beta1", "CronJob"): ("1.25", "batch/v1"),
}
# Where a kind lives today, for versions that never existed, such as extensions/v1.
_HOMES = {kind: successor for (_version, kind), (_release, successor) in REMOVED.items()}

Diagnosis = Callable[[Any, Facts], Optional[Finding]]


def diagnose(facts: Facts) -> list[Finding]:
    todo = [(manifest, MANIFESTS) for manifest in facts.manifests]
    todo += [(applied, APPLIED_MANIFESTS) for applied in _applied(facts)]
    todo += [(service, SERVICES) for service in facts.services or ()]
    answers = (next(filter(None, (one(item, facts) for one in table)), None) for item, table in todo)
    return [one for one in answers if one]


# Services ------------------------------------------------------------------------------------------------


def service_without_endpoints(service: Any, facts: Facts) -> Finding | None:
    selector = mapping(service, "spec", "selector")
    if not selector or is_deleting(service) or facts.slices is None or facts.pods is None:
        return None
    mine = facts.slices_by_service.get((namespace_of(service), name_of(service)), [])
    # Absent means ready (EndpointConditions).
    if any(get(each, "conditions", "ready") is not False for one in mine for each in entries(one, "endpoints")):
        return None
    chosen = {"matchLabels": selector}
    namespace = facts.pods_by_namespace.get(namespace_of(service), [])
    pods = [one for one in namespace if selects(chosen, mapping(one, "metadata", "labels"))]
    if pods:
        return finding(
            "Service",
            service,
            "service-without-endpoints",
            f"Service {full_name(service)} has no endpoints, since none of its pods is ready "
            f"({few(map(name_of, pods))}); see why they are not.",
            f"selector: {labels_in_words(selector)}",
            f"pods: {few(map(name_of, pods), 5)}",
        )
    if _is_wanted_empty(service, chosen, facts):
        return None
    others = [labels_in_words(mapping(one, "metadata", "labels")) for one in namespace]
    return finding(
        "Service",
        service,
        "service-without-endpoints",
        f"Service {full_name(service)} has no endpoints: no pod in its namespace has {labels_in_words(selector)}; "
        "correct its selector, or the labels of the pods.",
        f"selector: {labels_in_words(selector)}",
        f"labels of pods there: {few(sorted(set(filter(None, others))), 3)}" if others else "no pods there",
    )


def _is_wanted_empty(service: Any, selector: Object, facts: Facts) -> bool:
    """Whether the workload behind it is scaled to nothing on purpose."""
    return any(
        number(one, "spec", "replicas") == 0
        and selects(selector, mapping(one, "spec", "template", "metadata", "labels"))
        for one in (*(facts.deployments or ()), *(facts.statefulsets or ()))
        if namespace_of(one) == namespace_of(service)
    )


# Manifests -----------------------------------------------------------------------------------------------


def _applied(facts: Facts) -> Iterator[Object]:
    """What was applied by kubectl once, of the objects that are there: the next time it is sent again."""
    for one in (
        *(facts.ingresses or ()),
        *(facts.deployments or ()),
        *(facts.statefulsets or ()),
        *(facts.classes or ()),
    ):
        annotation = get(one, "metadata", "annotations", APPLIED)
        try:
            applied = json.loads(annotation) if isinstance(annotation, str) else None
        except (ValueError, RecursionError):
            continue
        if isinstance(applied, dict):
            yield {
                "apiVersion": applied.get("apiVersion"),
                "kind": applied.get("kind"),
                "metadata": {"name": name_of(one), "namespace": namespace_of(one)},
            }


def api_version(manifest: Any, facts: Facts) -> Finding | None:
    version, kind = text(manifest, "apiVersion"), text(manifest, "kind")
    if not version or not kind or facts.groups is None:
        return None
    group, _slash, short = version.rpartition("/")
    served = list(facts.groups.get(group) or ())
    release, home = REMOVED.get((version, kind), ("", _HOMES.get(kind, f"{group}/{served[0]}" if served else "")))
    evidence = f"versions of group {group or 'core'} served: {few(served, 5) or 'none'}"
    name = f"{kind} {full_name(manifest)}"
    # The group may still have this version, for kinds that are younger.
    if release and (short not in served or facts.minor >= int(release.partition(".")[2])):
        return finding(
            kind,
            manifest,
            "api-version-removed",
            f"{name}: apiVersion {version} is gone since Kubernetes {release}; write {home}, and adapt the fields.",
            evidence,
        )
    if short in served:
        return None
    repair = f"write {home}" if home and home != version else "correct it, or install what serves it"
    return finding(
        kind,
        manifest,
        "api-version-not-served",
        f"{name}: apiVersion {version} is not served by this cluster; {repair}.",
        evidence,
    )


def selector_not_matching(manifest: Any, _facts: Facts) -> Finding | None:
    """The API refuses it (422), so that the object is not there to be looked at."""
    kind = text(manifest, "kind")
    if kind not in _WITH_TEMPLATE:
        return None
    selector, labels = get(manifest, "spec", "selector"), mapping(manifest, "spec", "template", "metadata", "labels")
    if not mapping(manifest, "spec", "selector"):
        return finding(
            kind,
            manifest,
            "selector-not-matching-template",
            f"{kind} {full_name(manifest)} has no spec.selector, so the API refuses it; "
            "select the labels of its pod template.",
            f"labels of the template: {labels_in_words(labels) or 'none'}",
        )
    if selects(selector, labels):
        return None
    return finding(
        kind,
        manifest,
        "selector-not-matching-template",
        f"{kind} {full_name(manifest)} is refused by the API: its selector does not fit its pod template; "
        "give both the same labels.",
        f"selector: {labels_in_words(mapping(selector, 'matchLabels')) or 'expressions'}; "
        f"labels of the template: {labels_in_words(labels) or 'none'}",
    )


SERVICES: tuple[Diagnosis, ...] = (service_without_endpoints,)
MANIFESTS: tuple[Diagnosis, ...] = (api_version, selector_not_matching)
APPLIED_MANIFESTS: tuple[Diagnosis, ...] = (api_version,)
