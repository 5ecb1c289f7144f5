# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A list of volumes as it travels: as the result of a module, or as a file of JSON lines.

The first line is a header, {schema, kind: VolumeSet, cluster_uid, complete, listed_at, records, ...}; then one record a
line. Claims, where a plan needs them, are lines of their own with kind: PersistentVolumeClaim. For backups and restores
there are also the whole objects (kind: Object), the pods that mount claims (Pod), and Deployments and StatefulSets.
C(records) counts the lines after the header: a file that was cut off must not pass for a shorter list.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _json_lines, _uses, _volume_set, _workloads
from ansible_collections.clusterkit.storage.plugins.module_utils._api_answers import path_of
from ansible_collections.clusterkit.storage.plugins.module_utils._files import replace_lines
from ansible_collections.clusterkit.storage.plugins.module_utils._reclaim import Facts
from ansible_collections.clusterkit.storage.plugins.module_utils._selection import Selection
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import SCHEMA, Volume, counts

if TYPE_CHECKING:
    from ansible_collections.clusterkit.storage.plugins.module_utils._api import Api

KIND = "VolumeSet"
CLASSES = path_of("storageclasses", group="storage.k8s.io/v1")


@dataclass
class Listing:
    volumes: list[Volume]
    cluster_uid: str
    complete: bool
    listed_at: str
    total: int = 0  # of all volumes of the cluster, chosen or not
    facts: Facts | None = None
    claims: list[dict[str, Any]] = field(default_factory=list)
    classes: dict[str, Any] = field(default_factory=dict)
    objects: list[dict[str, Any]] = field(default_factory=list)  # volumes, claims and classes as the API gives them
    pods: list[dict[str, Any]] = field(default_factory=list)  # that mount claims
    workloads: list[dict[str, Any]] = field(default_factory=list)
    uses: list[dict[str, Any]] | None = None  # who mounts NFS without a volume; None if nobody asked

    @property
    def more(self) -> list[dict[str, Any]]:
        """The records that are no volumes."""
        objects = [{"kind": "Object", "object": one} for one in self.objects]
        return [*self.claims, *objects, *self.pods, *self.workloads]


def read(
    api: Api,
    selection: Selection,
    *,
    servers: Sequence[Mapping[str, Any]] = (),
    provisioner_state: bool = True,
    plan_for: str | None = None,
) -> Listing:
    """Raises ApiError."""
    uid = _volume_set.cluster_uid(api)
    found = _volume_set.read_selected(api, selection, servers=servers, provisioner_state=provisioner_state)
    total = len(found.volumes) if found.complete else api.count(_volume_set.VOLUMES)[0]
    listing = Listing(found.volumes, uid, found.complete, timestamp(found.now), total)
    if plan_for == "reclaim":
        claims = _volume_set.live_claims(api, (one.claim[:2] for one in found.volumes if one.claim))
        listing.facts = Facts(_volume_set.protected_namespaces(api), claims, _volume_set.recycled_now(api))
    elif plan_for == "expand":
        listing.claims = read_claims(api)
        listing.classes = read_classes(api)
    elif plan_for in ("backup", "restore"):
        if plan_for == "backup":
            listing.objects = read_objects(api, found.volumes)
        else:
            listing.claims = read_claims(api)
            listing.classes = read_classes(api)
        listing.pods = _workloads.read_users(api)
        listing.workloads = _workloads.read_workloads(api)
    elif plan_for == "cleanup":
        listing.claims = read_claims(api)
        listing.classes = read_classes(api)
        claims = {(one["namespace"], one["name"]): one["uid"] for one in listing.claims}
        listing.facts = Facts(_volume_set.protected_namespaces(api), claims, _volume_set.recycled_now(api))
        listing.uses = _uses.read(api)
    return listing


def read_objects(api: Api, volumes: Iterable[Volume]) -> list[dict[str, Any]]:
    """The volumes with their claims and classes, whole: few enough to be kept as they are, one listing a kind."""
    wanted = {one.name for one in volumes}
    claims = {one.claim[:2] for one in volumes if one.claim}
    classes = {one.storage_class for one in volumes}

    def chosen(kind: str, is_wanted: Callable[[Mapping[str, Any]], bool]) -> Callable[[dict[str, Any]], Any]:
        version = "storage.k8s.io/v1" if kind == "StorageClass" else "v1"
        return lambda item: {"apiVersion": version, "kind": kind, **item} if is_wanted(item["metadata"]) else None

    return [
        *api.list_all(_volume_set.VOLUMES, chosen("PersistentVolume", lambda one: one["name"] in wanted)).items,
        *api.list_all(
            _volume_set.CLAIMS,
            chosen("PersistentVolumeClaim", lambda one: (one["namespace"], one["name"]) in claims),
        ).items,
        *api.list_all(CLASSES, chosen("StorageClass", lambda one: one["name"] in classes)).items,
    ]


def read_claims(api: Api) -> list[dict[str, Any]]:
    claims: list[dict[str, Any]] = api.list_all(_volume_set.CLAIMS, claim_record).items
    return claims


def claim_record(item: Mapping[str, Any]) -> dict[str, Any]:
    metadata, spec, status = item["metadata"], item["spec"], item.get("status") or {}
    return {
        "schema": SCHEMA,
        "kind": "PersistentVolumeClaim",
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "resource_version": metadata["resourceVersion"],
        "deleting": metadata.get("deletionTimestamp"),
        "labels": metadata.get("labels") or {},
        "storage_class": spec.get("storageClassName") or "",
        "volume": spec.get("volumeName") or "",
        "phase": status.get("phase") or "Pending",
        "request": ((spec.get("resources") or {}).get("requests") or {}).get("storage", "0"),
        "capacity": (status.get("capacity") or {}).get("storage", "0"),
        "conditions": {one["type"]: one.get("message", "") for one in status.get("conditions") or []},
    }


def read_classes(api: Api) -> dict[str, Any]:
    def entry(item: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        expands = bool(item.get("allowVolumeExpansion"))
        about = {"provisioner": item["provisioner"], "allow_volume_expansion": expands}
        return item["metadata"]["name"], {**about, "parameters": item.get("parameters") or {}}

    return dict(api.list_all(CLASSES, entry).items)


def timestamp(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


# As a file ---------------------------------------------------------------------------------------------


def result(listing: Listing, dest: str | None) -> dict[str, Any]:
    """What the module returns; with C(dest) the records go there."""
    told: dict[str, Any] = {
        "counts": counts(listing.volumes),
        "cluster_uid": listing.cluster_uid,
        "complete": listing.complete,
        "listed_at": listing.listed_at,
        "volumes": [],
    }
    if dest:
        replace_lines(dest, lines(listing))
        return {**told, "dest": dest}
    return {**told, "volumes": [one.record() for one in listing.volumes]}


def lines(listing: Listing) -> Iterator[str]:
    header: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": KIND,
        "cluster_uid": listing.cluster_uid,
        "complete": listing.complete,
        "listed_at": listing.listed_at,
        "total": listing.total,
        "records": len(listing.volumes) + len(listing.more),
        "storage_classes": listing.classes,
        "uses": listing.uses,
    }
    if listing.facts:
        header["protected_namespaces"] = sorted(listing.facts.protected)
        header["recycled"] = sorted(listing.facts.recycled)
        header["live_claims"] = [[*key, uid] for key, uid in sorted(listing.facts.claims.items())]
    yield json.dumps(header, sort_keys=True)
    for volume in listing.volumes:
        yield json.dumps(volume.record(), sort_keys=True)
    for one in listing.more:
        yield json.dumps(one, sort_keys=True)


def load(path: str) -> Listing:
    """Raises ValueError that names the line when this is no such file."""
    with Path(path).open(encoding="utf-8") as stream:
        return parse(stream, path)


def parse(stream: Iterable[str], path: str) -> Listing:
    listing: Listing | None = None
    records = 0
    number = 1
    try:
        for data in _json_lines.read(stream):
            if not isinstance(data, dict):
                raise ValueError("no object")
            if listing is None:
                listing, records = _header(data), data["records"]
            elif data.get("kind"):
                _add(listing, data)
            else:
                listing.volumes.append(Volume.from_record(data))
            number += 1
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: line {number}: {error}; expected a file that clusterkit.storage.pv_info wrote"
        ) from error
    if listing is None:
        raise ValueError(f"{path} is empty; expected a file that clusterkit.storage.pv_info wrote")
    found = len(listing.volumes) + len(listing.more)
    if found != records:
        raise ValueError(f"{path} was cut off: it holds {found} records; expected {records} as its first line says")
    return listing


def _add(listing: Listing, data: dict[str, Any]) -> None:
    kind = data["kind"]
    if kind == "PersistentVolumeClaim":
        listing.claims.append(data)
    elif kind == "Object":
        listing.objects.append(data["object"])
    elif kind == "Pod":
        listing.pods.append(data)
    elif kind in _workloads.KINDS:
        listing.workloads.append(data)
    else:
        raise ValueError(f"{kind!r} is no kind of record")


def _header(data: Mapping[str, Any]) -> Listing:
    if data.get("kind") != KIND or data.get("schema") != SCHEMA:
        raise ValueError(f"no header of kind {KIND}, schema {SCHEMA}")
    listing = Listing([], data["cluster_uid"], data["complete"], data["listed_at"], data["total"])
    if "protected_namespaces" in data:
        listing.facts = Facts(
            frozenset(data["protected_namespaces"]),
            {(namespace, name): uid for namespace, name, uid in data["live_claims"]},
            frozenset(data["recycled"]),
        )
    listing.classes, listing.uses = data["storage_classes"], data["uses"]
    return listing
