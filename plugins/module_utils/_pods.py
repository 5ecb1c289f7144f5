# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pods and nodes as records, as far as storage is concerned, and the file of JSON lines that they travel in.

The first line is a header, {schema, kind: PodSet, cluster_uid, listed_at, protected_namespaces}; then one record a
line, of kind Node or Pod.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils._times import seconds_since

SCHEMA = 1
KIND = "PodSet"
# The uid of a static pod for kubelet; the API knows it by the uid of its mirror (kubelet/types/pod_update.go).
_STATIC_UID = "kubernetes.io/config.hash"
_TEMPLATE_HASH = "pod-template-hash"

Record = dict[str, Any]


@dataclass
class PodSet:
    """All pods of a cluster that have a node, and the nodes, at one moment."""

    cluster_uid: str
    listed_at: str  # by the API server's clock
    protected: frozenset[str] = frozenset()
    nodes: list[Record] = field(default_factory=list)
    pods: list[Record] = field(default_factory=list)


def pod_record(item: Mapping[str, Any], claims: Mapping[tuple[str, str], str]) -> Record:
    """Of a pod as the API gives it. C(claims): server:path of the NFS volumes that claims are bound to."""
    metadata, spec, status = item["metadata"], item.get("spec") or {}, item.get("status") or {}
    annotations = metadata.get("annotations") or {}
    return {
        "schema": SCHEMA,
        "kind": "Pod",
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "static_uid": annotations.get(_STATIC_UID),
        "resource_version": metadata["resourceVersion"],
        "node": spec.get("nodeName") or "",
        "phase": status.get("phase") or "Pending",
        "deleting": metadata.get("deletionTimestamp"),
        "finalizers": metadata.get("finalizers") or [],
        "owner": " ".join(controller_of(metadata) or ()) or None,
        "volumes": [
            volume
            for one in spec.get("volumes") or []
            for volume in [_volume(one, metadata["namespace"], metadata["name"], claims)]
            if volume
        ],
    }


def controller_of(metadata: Mapping[str, Any]) -> tuple[str, str] | None:
    """Kind and name of who makes the pod again when it is gone; None: nobody."""
    for one in metadata.get("ownerReferences") or []:
        # kubelet makes the mirror of a static pod again, but not the pod itself.
        if one.get("controller") and one["kind"] != "Node":
            kind, name = one["kind"], one["name"]
            suffix = f"-{(metadata.get('labels') or {}).get(_TEMPLATE_HASH)}"
            if kind == "ReplicaSet" and name.endswith(suffix):
                return "Deployment", name[: -len(suffix)]
            return kind, name
    return None


def claims_of(spec: Mapping[str, Any], pod: str = "") -> list[str]:
    """Names of the claims that a pod of that name, or the template of one, mounts."""
    found = []
    for volume in spec.get("volumes") or []:
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if volume.get("ephemeral") and pod:
            claim = f"{pod}-{volume['name']}"
        if claim:
            found.append(str(claim))
    return found


def writers_of(spec: Mapping[str, Any], pod: str) -> dict[str, list[str]]:
    """By claim, the names of the containers of a pod that mount it and may write to it."""
    claims: dict[str, list[str]] = {}
    for volume in spec.get("volumes") or []:
        if (volume.get("persistentVolumeClaim") or {}).get("readOnly"):
            continue
        for claim in claims_of({"volumes": [volume]}, pod):
            claims.setdefault(claim, []).append(volume["name"])
    found = {}
    for claim, volumes in claims.items():
        names = [
            str(one["name"])
            for one in spec.get("containers") or []
            if any(each["name"] in volumes and not each.get("readOnly") for each in one.get("volumeMounts") or [])
        ]
        if names:
            found[claim] = names
    return found


def _volume(
    volume: Mapping[str, Any], namespace: str, pod: str, claims: Mapping[tuple[str, str], str]
) -> dict[str, str] | None:
    """What of it lies on NFS, or may: a directory of the node. None for all else."""
    name = volume["name"]
    if volume.get("nfs"):
        return {"name": name, "kind": "nfs", "source": f"{volume['nfs'].get('server')}:{volume['nfs'].get('path')}"}
    if volume.get("hostPath"):
        return {"name": name, "kind": "hostPath", "source": volume["hostPath"].get("path") or ""}
    claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
    if volume.get("ephemeral"):
        claim = f"{pod}-{name}"
    source = claims.get((namespace, claim)) if claim else None
    return {"name": name, "kind": "nfs", "source": source} if source else None


def node_record(item: Mapping[str, Any]) -> Record:
    status = item.get("status") or {}
    ready: Mapping[str, Any] = next((one for one in status.get("conditions") or [] if one.get("type") == "Ready"), {})
    return {
        "schema": SCHEMA,
        "kind": "Node",
        "name": item["metadata"]["name"],
        "ready": ready.get("status") == "True",
        "since": ready.get("lastTransitionTime"),
        "addresses": [one["address"] for one in status.get("addresses") or []],
    }


def uses_nfs(pod: Record) -> bool:
    return any(one["kind"] == "nfs" for one in pod["volumes"])


def is_ending(pod: Record, now: float) -> bool:
    """Whether it was deleted, and its time to end by itself is over: since then kubelet kills it.

    The deletionTimestamp is the time of the request plus the grace period.
    """
    over = seconds_since(pod["deleting"], now)
    return over is not None and over >= 0


def name_of(pod: Mapping[str, Any]) -> str:
    return f"{pod['namespace']}/{pod['name']}"


def lines(found: PodSet) -> Iterator[str]:
    header = {
        "schema": SCHEMA,
        "kind": KIND,
        "cluster_uid": found.cluster_uid,
        "listed_at": found.listed_at,
        "protected_namespaces": sorted(found.protected),
    }
    for record in (header, *found.nodes, *found.pods):
        yield json.dumps(record, sort_keys=True)


def load(path: str) -> PodSet:
    """Raises ValueError that names the line when this is no such file."""
    with Path(path).open(encoding="utf-8") as stream:
        return parse(stream, path)


def parse(stream: Iterable[str], path: str) -> PodSet:
    found: PodSet | None = None
    for number, line in enumerate(stream, 1):
        try:
            data = json.loads(line)
            if data["schema"] != SCHEMA:
                raise ValueError(f"schema is {data['schema']!r}; expected {SCHEMA}")
            if found is None:
                if data["kind"] != KIND:
                    raise ValueError(f"no header of kind {KIND}")
                found = PodSet(data["cluster_uid"], data["listed_at"], frozenset(data["protected_namespaces"]))
            else:
                {"Pod": found.pods, "Node": found.nodes}[data["kind"]].append(data)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}: line {number}: {error}; expected a file that clusterkit.storage.pod_info wrote"
            ) from error
    if found is None:
        raise ValueError(f"{path} is empty; expected a file that clusterkit.storage.pod_info wrote")
    return found
