# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a diagnosis looks at: objects of the API and what hosts said, found by name, and never an exception over a gap.

A list that is None could not be read: diagnoses that need it say nothing, or call their answer probable.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils._diagnose_objects import (
    Object,
    Objects,
    Offer,
    Source,
    claims_of,
    entries,
    event_time,
    get,
    name_of,
    namespace_of,
    number,
    source_of,
    text,
    texts,
    words,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._times import seconds_since

Key = tuple[str, str, str]  # kind, namespace, name

_DRIVER = re.compile(r"(?<!\S)--drivername=(\S+)")


# Findings ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """Why an object is stuck. With C(check) it is probable only, and that is what to look at."""

    kind: str
    namespace: str
    name: str
    cause: str
    sentence: str
    evidence: tuple[str, ...] = ()
    check: str = ""

    @property
    def key(self) -> Key:
        return (self.kind, self.namespace, self.name)

    def as_dict(self) -> dict[str, Any]:
        return {
            "object": {"kind": self.kind, "namespace": self.namespace, "name": self.name},
            "cause": self.cause,
            "sentence": self.sentence,
            "evidence": list(self.evidence),
            "certainty": "probable" if self.check else "certain",
            "check": self.check,
        }


def finding(kind: str, item: Any, cause: str, sentence: str, *evidence: str, check: str = "") -> Finding:
    return Finding(kind, namespace_of(item), name_of(item), cause, sentence, tuple(filter(None, evidence)), check)


# Facts ---------------------------------------------------------------------------------------------------


@dataclass
class Facts:
    """All of it; C(now) by the API server's clock, in seconds of the epoch."""

    now: float = 0.0
    claims: Objects = None
    volumes: Objects = None
    classes: Objects = None
    pods: Objects = None
    events: Objects = None
    deployments: Objects = None
    statefulsets: Objects = None
    services: Objects = None
    slices: Objects = None
    nodes: Objects = None
    ingresses: Objects = None
    # Versions by API group ("" is the core), for example {"apps": ["v1"]}.
    groups: Mapping[str, Sequence[str]] | None = None
    # Second part of the version of Kubernetes; 0 if it is not known.
    minor: int = 0
    # running or stopped by provisioner.
    provisioners: Mapping[str, str] | None = None
    # By namespace, pod and container.
    logs: Mapping[tuple[str, str, str], str] = field(default_factory=dict)
    # By provisioner: what its service account may not do, such as "create persistentvolumes".
    denied: Mapping[str, Sequence[str]] = field(default_factory=dict)
    # What somebody wants to apply.
    manifests: Sequence[Any] = ()
    # What hosts said, an entry a host: {host, addresses, and the result of the module}.
    exports: Sequence[Any] = ()
    directories: Sequence[Any] = ()
    mounts: Sequence[Any] = ()
    # Whether somebody asked for this claim or pod by name, and wants to know what it waits for in any case.
    asked: bool = False

    @functools.cached_property
    def claim_by_name(self) -> dict[tuple[str, str], Object]:
        return {(namespace_of(one), name_of(one)): one for one in self.claims or ()}

    @functools.cached_property
    def volume_by_name(self) -> dict[str, Object]:
        return {name_of(one): one for one in self.volumes or ()}

    @functools.cached_property
    def class_by_name(self) -> dict[str, Object]:
        return {name_of(one): one for one in self.classes or ()}

    @functools.cached_property
    def pods_by_claim(self) -> dict[tuple[str, str], list[Object]]:
        found: dict[tuple[str, str], list[Object]] = {}
        for pod in self.pods or ():
            for name in claims_of(pod):
                found.setdefault((namespace_of(pod), name), []).append(pod)
        return found

    @functools.cached_property
    def pods_by_namespace(self) -> dict[str, list[Object]]:
        return _by_namespace(self.pods)

    @functools.cached_property
    def slices_by_service(self) -> dict[tuple[str, str], list[Object]]:
        found: dict[tuple[str, str], list[Object]] = {}
        for one in self.slices or ():
            service = text(one, "metadata", "labels", "kubernetes.io/service-name")
            found.setdefault((namespace_of(one), service), []).append(one)
        return found

    @functools.cached_property
    def controllers(self) -> dict[str, list[Object]]:
        """Deployments and StatefulSets by the provisioner that they run: by environment, or name of the CSI driver."""
        found: dict[str, list[Object]] = {}
        for one in (*(self.deployments or ()), *(self.statefulsets or ())):
            names: dict[str, None] = {}
            for container in entries(one, "spec", "template", "spec", "containers"):
                for each in entries(container, "env"):
                    if text(each, "name") == "PROVISIONER_NAME":
                        names[text(each, "value")] = None
                for argument in (*texts(container, "command"), *texts(container, "args")):
                    names.update(dict.fromkeys(_DRIVER.findall(argument)))
            for name in names:
                found.setdefault(name, []).append(one)
        return found

    @functools.cached_property
    def offers(self) -> list[Offer]:
        """What each volume offers to claims, looked up once: claims times volumes is a large number."""
        return [Offer.of(one) for one in self.volumes or ()]

    @functools.cached_property
    def _events_by_uid(self) -> dict[str, list[Object]]:
        found: dict[str, list[Object]] = {}
        for event in self.events or ():
            found.setdefault(text(event, "involvedObject", "uid"), []).append(event)
        for several in found.values():
            several.sort(key=event_time, reverse=True)
        return found

    def warnings(self, item: Any, *reasons: str) -> list[str]:
        """Messages of events about the object, the newest first."""
        uid = text(item, "metadata", "uid")
        events = self._events_by_uid.get(uid, ()) if uid else ()
        return [words(one, "message") for one in events if text(one, "reason") in reasons and words(one, "message")]

    def age(self, timestamp: str) -> float:
        """Seconds since a time of the API; 0 if it is none."""
        try:
            return seconds_since(timestamp, self.now) or 0.0
        except OverflowError:
            return 0.0

    # Hosts -----------------------------------------------------------------------------------------

    def exports_of(self, server: str) -> Object | None:
        """What the host behind this name or address of a server said about its exports, if it said something."""
        return _host_behind(server, self.exports)

    def directory(self, server: str, path: str) -> Object | None:
        """The directory: {path, exists, uid, gid, mode}."""
        host = _host_behind(server, self.directories)
        plain = path.rstrip("/") or "/"
        return next((one for one in entries(host, "directories") if text(one, "path") == plain), None)

    def answers(self, server: str) -> bool | None:
        """Whether the NFS server replied to one of the nodes; None if nobody asked it."""
        host = self.exports_of(server)
        if number(host, "threads") == 0:
            return False
        names = {server, *texts(host, "addresses")}
        replies = [
            get(one, "answers") is True
            for node in self.mounts
            for one in entries(node, "servers")
            if text(one, "address") in names
        ]
        return any(replies) if replies else None

    def mounts_of(self, pod: Any) -> list[Object]:
        """The live NFS mounts that kubelet made for the pod."""
        uid = text(pod, "metadata", "uid")
        every = (one for node in self.mounts for one in entries(node, "mounts"))
        return [one for one in every if uid and text(one, "pod", "uid") == uid]


def _by_namespace(items: Objects) -> dict[str, list[Object]]:
    found: dict[str, list[Object]] = {}
    for one in items or ():
        found.setdefault(namespace_of(one), []).append(one)
    return found


def _host_behind(server: str, hosts: Iterable[Any]) -> Object | None:
    wanted = server.strip("[]").lower()
    for one in hosts:
        if wanted and wanted in {name.lower() for name in (text(one, "host"), *texts(one, "addresses"))}:
            return one if isinstance(one, Mapping) else None
    return None


def sources_of(pod: Any, facts: Facts) -> Iterator[tuple[str, Source]]:
    """Name of the pod's volume, and where its files are, of each that is on NFS."""
    for volume in entries(pod, "spec", "volumes"):
        claim = text(volume, "persistentVolumeClaim", "claimName")
        if claim:
            name = text(facts.claim_by_name.get((namespace_of(pod), claim)), "spec", "volumeName")
            source = source_of(get(facts.volume_by_name.get(name), "spec"), name)
        else:
            source = source_of(volume, text(volume, "name"))
        if source and source.server:
            yield text(volume, "name"), source
