# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a request to change policy or claim of a volume means for each volume: pure decisions.

They keep data: nothing here lets a provisioner, the controller manager or a new claim destroy what a volume holds,
unless the request says in words that a later deletion is meant.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import (
    BOUND_BY_CONTROLLER,
    PREVIOUS_POLICY,
    Volume,
)

ARGUMENTS: dict[str, Any] = {
    "policy": {"type": "str", "choices": ["Retain", "Delete", "Recycle", "Previous"]},
    "keep_previous": {"type": "bool", "default": False},
    "release": {"type": "str", "choices": ["open", "reserved"]},
    "labels": {"type": "dict", "default": {}},
    "annotations": {"type": "dict", "default": {}},
    "time_annotation": {"type": "str"},
    "allow_future_deletion": {"type": "bool", "default": False},
    "protected_namespaces": {"type": "list", "elements": "str", "default": []},
}
_KEY = re.compile(r"(?:[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_DESTROYING = ("Delete", "Recycle")


@dataclass(frozen=True)
class Request:
    policy: str | None = None  # Previous: the one that an annotation keeps
    release: str | None = None  # open or reserved
    labels: Mapping[str, str | None] = field(default_factory=dict)  # None removes
    annotations: Mapping[str, str | None] = field(default_factory=dict)
    time_annotation: str | None = None
    allow_future_deletion: bool = False
    keep_previous: bool = False
    content: str = "keep"  # or quarantine, before a volume is opened

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Request:
        """Raises ValueError when it asks for nothing, or for what no volume can have."""
        texts = {
            name: {str(key): _text(value) for key, value in (given.get(name) or {}).items()}
            for name in ("labels", "annotations")
        }
        made = cls(
            policy=given.get("policy"),
            release=given.get("release"),
            time_annotation=given.get("time_annotation"),
            allow_future_deletion=bool(given.get("allow_future_deletion")),
            keep_previous=bool(given.get("keep_previous")),
            content=given.get("content") or "keep",
            **texts,
        )
        made.check()
        return made

    def check(self) -> None:
        if not (self.policy or self.release or self.labels or self.annotations):
            raise ValueError("nothing is asked for: give policy, release, labels or annotations")
        if self.keep_previous and self.policy != "Retain":
            raise ValueError("keep_previous: belongs to policy: Retain, which takes the place of another one")
        if self.keep_previous and self.release:
            raise ValueError(
                "keep_previous and release exclude each other: who takes a released volume must not get the policy "
                "that its last owner had"
            )
        if self.content == "quarantine" and self.release != "open":
            raise ValueError(
                "content: quarantine belongs to release: open; who a volume is reserved for is to find its data"
            )
        if self.may_destroy and self.release:
            raise ValueError(
                f"policy: {self.policy} and release exclude each other: it is refused on volumes that can be released"
            )
        if self.may_destroy and not self.allow_future_deletion:
            raise ValueError(
                f"policy: {self.policy} lets the data go when the claim is deleted; say allow_future_deletion: true "
                "if that is meant"
            )
        keys = [*self.labels, *self.annotations, *filter(None, [self.time_annotation])]
        for key in keys:
            domain = key.rpartition("/")[0]
            if not _KEY.fullmatch(key):
                raise ValueError(f'"{key}" is not a key of a label or annotation; write for example example.com/why')
            if domain.endswith(("kubernetes.io", "k8s.io")):
                raise ValueError(f'"{key}" belongs to Kubernetes: the fate of a volume hangs on such annotations')
        for key, value in self.labels.items():
            if value is not None and not _LABEL.fullmatch(value):
                raise ValueError(f'labels.{key}: "{value}" is not the value of a label; use an annotation')

    @property
    def may_destroy(self) -> bool:
        return self.policy in (*_DESTROYING, "Previous")

    def of_volume(self, volume: Volume) -> Request:
        """The same with the policy that is meant for this volume."""
        held = volume.annotations.get(PREVIOUS_POLICY)
        if self.policy == "Previous":
            if held not in _DESTROYING:
                return replace(self, policy=None)
            return replace(self, policy=held, annotations={**self.annotations, PREVIOUS_POLICY: None})
        if self.keep_previous and volume.policy != self.policy:
            return replace(self, annotations={**self.annotations, PREVIOUS_POLICY: volume.policy})
        if held and not self.keep_previous and (self.policy or self.release):
            # Somebody decides anew: what an upgrade has kept must not come back later.
            return replace(self, annotations={**self.annotations, PREVIOUS_POLICY: None})
        return self

    def plain(self) -> dict[str, Any]:
        return {
            "policy": self.policy,
            "release": self.release,
            "labels": dict(self.labels),
            "annotations": dict(self.annotations),
            "time_annotation": self.time_annotation,
            "allow_future_deletion": self.allow_future_deletion,
            "keep_previous": self.keep_previous,
            "content": self.content,
        }


@dataclass(frozen=True)
class Facts:
    """What other objects tell."""

    protected: frozenset[str] = frozenset()
    claims: Mapping[tuple[str, str], str] = field(default_factory=dict)  # uid of claims that exist
    recycled: frozenset[str] = frozenset()  # names, and server:path, of volumes that a pod is emptying now


@dataclass(frozen=True)
class Decision:
    """C(patch) is what changes, without the precondition; empty when the volume is as wanted or the change refused."""

    volume: Volume
    patch: Mapping[str, Any] = field(default_factory=dict)
    refusal: str = ""
    note: str = ""

    @property
    def precondition(self) -> dict[str, str]:
        return {"uid": self.volume.uid, "resource_version": self.volume.resource_version}

    def body(self, request: Request, time: str) -> dict[str, Any]:
        """The merge patch. The resourceVersion makes the API refuse it when the volume has changed since."""
        metadata = {**self.patch.get("metadata", {}), "resourceVersion": self.volume.resource_version}
        if request.time_annotation:
            metadata["annotations"] = {**metadata.get("annotations", {}), request.time_annotation: time}
        return {**self.patch, "metadata": metadata}


def needs_claim(volume: Volume, request: Request) -> bool:
    """Whether the decision hangs on the claim that the volume names."""
    if not volume.claim:
        return False
    request = request.of_volume(volume)
    if request.policy in _DESTROYING and volume.policy != request.policy:
        return True
    return bool(request.release) and volume.phase in ("Released", "Failed")


def needs_recyclers(volume: Volume, request: Request) -> bool:
    """Only volumes that somebody made by hand can be recycled, and only NFS and hostPath."""
    return bool(request.release) and volume.driver == "nfs" and volume.phase in ("Released", "Failed")


def decide(volume: Volume, request: Request, facts: Facts) -> Decision:
    request = request.of_volume(volume)
    patch = _patch(volume, request)
    refusal = _refusal(volume, request, facts, patch)
    if refusal or not patch:
        return Decision(volume, refusal=refusal)
    note = ""
    if "spec" in patch and "claimRef" in patch["spec"]:
        if request.release == "open" and request.content == "quarantine":
            note = "any claim may take it now; its old content is in quarantine"
        elif request.release == "open":
            note = "any claim may take it now; the old content will be visible to the next one"
        else:
            note = f"only a claim {volume.claim_name} may take it now, and will find its old content"
    return Decision(volume, patch, note=note)


def _patch(volume: Volume, request: Request) -> dict[str, Any]:
    spec: dict[str, Any] = {}
    annotations = _differing(volume.annotations, request.annotations)
    labels = _differing(volume.labels, request.labels)
    if request.policy and request.policy != volume.policy:
        spec["persistentVolumeReclaimPolicy"] = request.policy
    if request.release == "open" and volume.claim:
        spec["claimRef"] = None
    elif request.release == "reserved" and volume.claim and volume.claim[2]:
        spec["claimRef"] = {"uid": None, "resourceVersion": None}
    if "claimRef" in spec and BOUND_BY_CONTROLLER in volume.annotations:
        # With it the controller takes the binding for its own, and gives a reserved volume to anybody.
        annotations[BOUND_BY_CONTROLLER] = None
    metadata = {name: value for name, value in (("annotations", annotations), ("labels", labels)) if value}
    return {name: value for name, value in (("metadata", metadata), ("spec", spec)) if value}


def _differing(found: Mapping[str, str], wanted: Mapping[str, str | None]) -> dict[str, str | None]:
    return {key: value for key, value in wanted.items() if found.get(key) != value}


def _refusal(volume: Volume, request: Request, facts: Facts, patch: Mapping[str, Any]) -> str:
    spec = patch.get("spec", {})
    if volume.driver == "other" and patch:
        return "is neither an NFS nor a CSI volume: such volumes are listed, never changed"
    if "persistentVolumeReclaimPolicy" in spec and request.policy in _DESTROYING:
        found = _refused_policy(volume, request, facts)
        if found:
            return found
    if request.release and not _is_released(volume, request):
        return _refused_release(volume, request, facts)
    return ""


def _is_released(volume: Volume, request: Request) -> bool:
    """Whether nothing is left to do: available, and reserved if that is wanted."""
    if volume.phase != "Available":
        return False
    return volume.claim is None if request.release == "open" else bool(volume.claim and not volume.claim[2])


def _refused_policy(volume: Volume, request: Request, facts: Facts) -> str:
    if volume.deleting:
        return f"is being deleted since {volume.deleting}: with policy {request.policy} its data would go with it"
    if volume.phase in ("Released", "Failed"):
        return (
            f"is {volume.phase}: policy {request.policy} would destroy its data now; removing volumes is what "
            "clusterkit.storage.pv_cleanup is for"
        )
    if volume.phase not in ("Bound", "Available"):
        return f"is {volume.phase}: policy {request.policy} is set on Bound and Available volumes only"
    if volume.claim and volume.claim[0] in facts.protected:
        return f'belongs to the protected namespace "{volume.claim[0]}"'
    if volume.claim and volume.claim[2]:
        # The phase follows the claim with a delay: without its claim the volume is about to be Released.
        living = facts.claims.get(volume.claim[:2])
        if living != volume.claim[2]:
            return (
                f"its claim {volume.claim_name} does not exist any more: policy {request.policy} would destroy its data"
            )
    if request.policy == "Recycle" and volume.driver != "nfs":
        return "is a CSI volume: those cannot be recycled"
    return ""


def _refused_release(volume: Volume, request: Request, facts: Facts) -> str:
    if volume.deleting:
        return f"is being deleted since {volume.deleting}; it cannot be given to another claim"
    if volume.phase == "Bound":
        return f"is Bound to {volume.claim_name}: a volume in use is never released; delete the claim first"
    if not volume.claim:
        if request.release == "reserved" and volume.phase == "Available":
            return "is Available and names no claim that it could be reserved for"
        return f"is {volume.phase} and names no claim: there is nothing to release"
    if volume.claim[0] in facts.protected:
        return f'belongs to the protected namespace "{volume.claim[0]}"'
    if volume.phase == "Available" and not volume.claim[2]:
        return ""  # reserved until now, opened to all
    if volume.phase not in ("Released", "Failed"):
        return (
            f"is {volume.phase} with a claim {volume.claim_name}: it is about to be bound or released; look again later"
        )
    living = facts.claims.get(volume.claim[:2])
    if living == volume.claim[2] and living:
        return f"its claim {volume.claim_name} still exists"
    if living:
        return (
            f"its claim {volume.claim_name} exists again, with another uid: whose data this is must be decided by a "
            "person; delete or rename one of the two"
        )
    if {volume.name, f"{volume.server}:{volume.path}"} & facts.recycled:
        return "a recycler pod is emptying it"
    if volume.policy == "Recycle":
        return (
            "its policy is Recycle: the controller may be emptying it at this moment; set policy Retain first, and "
            "release it in a later run"
        )
    if volume.policy == "Delete" and volume.is_dynamic and volume.provisioner_state != "stopped":
        return (
            f"its policy is Delete and its provisioner {volume.provisioner} is {volume.provisioner_state}: it may be "
            "deleting the data at this moment; set policy Retain first, and release it in a later run"
        )
    policy = request.policy or volume.policy
    if policy in _DESTROYING and not request.allow_future_deletion:
        return (
            f"its policy is {policy}: the old content would go with the next claim; add policy: Retain, or say "
            "allow_future_deletion: true"
        )
    return ""


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    raise ValueError(f"{value!r} is not a text; labels and annotations hold texts")
