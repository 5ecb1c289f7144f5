# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From facts to findings: which object is stuck, by what cause, and how to repair it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import (
    _diagnose_claims,
    _diagnose_pods,
    _diagnose_volumes,
    _diagnose_workloads,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._diagnose_facts import Facts, Finding, Key, sources_of
from ansible_collections.clusterkit.storage.plugins.module_utils._diagnose_objects import (
    Source,
    claims_of,
    get,
    name_of,
    namespace_of,
    source_of,
    text,
)

# Each goes through its objects, and asks of each object the diagnoses of its table until one answers.
KINDS: tuple[Callable[[Facts], list[Finding]], ...] = (
    _diagnose_claims.diagnose,
    _diagnose_pods.diagnose,
    _diagnose_volumes.diagnose,
    _diagnose_workloads.diagnose,
)
_ORDER = {"PersistentVolumeClaim": 0, "Pod": 1, "PersistentVolume": 2}


@dataclass(frozen=True)
class Target:
    """What is asked about: the whole cluster, a namespace, or a claim or pod in it."""

    namespace: str = ""
    claim: str = ""
    pod: str = ""

    @property
    def is_everything(self) -> bool:
        return not self.namespace


def diagnose(facts: Facts, target: Target | None = None) -> list[Finding]:
    """Findings in a fixed order: claims, pods, volumes, the rest, each by name."""
    found = [one for kind in KINDS for one in kind(facts)]
    if target and not target.is_everything:
        keep, asked = related(facts, target), {_key(one) for one in facts.manifests}
        found = [one for one in found if one.key in keep or one.key in asked or _is_in(one, target)]
    unique = {(one.key, one.cause): one for one in found}
    return sorted(unique.values(), key=lambda one: (_ORDER.get(one.kind, 3), *one.key, one.cause))


def _key(manifest: Any) -> Key:
    return (text(manifest, "kind"), namespace_of(manifest), name_of(manifest))


def _is_in(one: Finding, target: Target) -> bool:
    return not target.claim and not target.pod and one.namespace == target.namespace


def related(facts: Facts, target: Target) -> set[Key]:
    """The claims and pods that are meant, and the volumes that they depend on."""
    namespace = target.namespace
    claims = {target.claim} if target.claim else set()
    keys: set[Key] = set()
    for pod in facts.pods or ():
        if target.pod and (namespace_of(pod), name_of(pod)) == (namespace, target.pod):
            claims |= set(claims_of(pod))
            keys.add(("Pod", namespace, target.pod))
    everything = not target.claim and not target.pod
    for claim in facts.claims or ():
        if namespace_of(claim) == namespace and (everything or name_of(claim) in claims):
            keys.add(("PersistentVolumeClaim", namespace, name_of(claim)))
            keys.add(("PersistentVolume", "", text(claim, "spec", "volumeName")))
    for volume in facts.volumes or ():
        reference = get(volume, "spec", "claimRef")
        if text(reference, "namespace") == namespace and (everything or text(reference, "name") in claims):
            keys.add(("PersistentVolume", "", name_of(volume)))
    return keys


def places(facts: Facts, findings: Iterable[Finding]) -> list[dict[str, str]]:
    """Where the files of the volumes lie that probable findings are about: what hosts can be asked for."""
    keys = {one.key for one in findings if one.check}
    sources: list[Source] = []
    for pod in facts.pods or ():
        if ("Pod", namespace_of(pod), name_of(pod)) in keys:
            sources += [one for _name, one in sources_of(pod, facts)]
    for volume in facts.volumes or ():
        source = source_of(get(volume, "spec"), name_of(volume))
        if ("PersistentVolume", "", name_of(volume)) in keys and source:
            sources.append(source)
    found = {(one.server, one.path.rstrip("/") or "/") for one in sources}
    return [{"server": server, "path": path} for server, path in sorted(found)]


def missing(facts: Facts, target: Target) -> str:
    """Why there is nothing to look at: what is asked about does not exist. Empty if it does, or cannot be known."""
    if target.claim and facts.claims is not None and (target.namespace, target.claim) not in facts.claim_by_name:
        others = sorted(namespace for namespace, name in facts.claim_by_name if name == target.claim)
        hint = f"; there is one in {', '.join(others)}" if others else ""
        return f'claim: there is no claim "{target.claim}" in namespace "{target.namespace}"{hint}'
    pods = {(namespace_of(one), name_of(one)) for one in facts.pods or ()}
    if target.pod and facts.pods is not None and (target.namespace, target.pod) not in pods:
        return f'pod: there is no pod "{target.pod}" in namespace "{target.namespace}"'
    return ""


def result(facts: Facts, target: Target) -> dict[str, Any]:
    """What the module returns."""
    found = diagnose(facts, target)
    return {"findings": [one.as_dict() for one in found], "places": places(facts, found)}
