# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading volumes from the API, with what other objects tell about them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _controllers, _selection
from ansible_collections.clusterkit.storage.plugins.module_utils._api_answers import ApiError, path_of
from ansible_collections.clusterkit.storage.plugins.module_utils._server_map import ServerMap
from ansible_collections.clusterkit.storage.plugins.module_utils._times import seconds_since
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import Volume

if TYPE_CHECKING:
    from ansible_collections.clusterkit.storage.plugins.module_utils._api import Api

PROTECTED = "storage.clusterkit/protected"
VOLUMES = path_of("persistentvolumes")
CLAIMS = path_of("persistentvolumeclaims")
RECYCLER = "recycler-for-"
# Fewer objects than this are read one by one, more by a list of all.
FEW = 100
# A lock counts as held for this long after its last renewal: four times the usual lease.
LOCK_SECONDS = 60.0


@dataclass
class VolumeSet:
    volumes: list[Volume]
    complete: bool  # all volumes of the cluster are in it
    now: float  # the API server's time of the list
    resource_version: str = ""
    missing: list[str] = field(default_factory=list)  # names that were asked for and are not there


def read_selected(
    api: Api,
    selection: _selection.Selection,
    *,
    servers: Sequence[Mapping[str, Any]] = (),
    provisioner_state: bool = False,
) -> VolumeSet:
    """All volumes that fit, sorted by name."""
    query = {"labelSelector": selection.label_selector} if selection.label_selector else None
    listing = api.list_all(VOLUMES, Volume.of, query)
    volumes: list[Volume] = listing.items
    if provisioner_state or selection.asks_for_provisioners:
        add_provisioner_states(api, volumes)
    known = ServerMap(servers)
    for volume in volumes if servers else ():
        volume.place_in(known)
    chosen = [one for one in volumes if selection.fits(one, listing.date)]
    chosen.sort(key=lambda one: one.name)
    return VolumeSet(chosen, selection.is_empty, listing.date, listing.resource_version)


def read_named(api: Api, names: Iterable[str]) -> VolumeSet:
    """The volumes of these names, in the order given."""
    wanted = list(dict.fromkeys(names))
    _total, resource_version = api.count(VOLUMES)
    if len(wanted) > FEW:
        keep = set(wanted)
        listing = api.list_all(VOLUMES, lambda item: Volume.of(item) if item["metadata"]["name"] in keep else None)
        found = {one.name: one for one in listing.items}
        resource_version = listing.resource_version
    else:
        found = {one.name: one for one in api.each(lambda name: read_volume(api, name), wanted) if one}
    volumes = [found[name] for name in wanted if name in found]
    return VolumeSet(volumes, False, 0.0, resource_version, [name for name in wanted if name not in found])


def read_volume(api: Api, name: str) -> Volume | None:
    try:
        return Volume.of(api.get(path_of("persistentvolumes", name)))
    except ApiError as error:
        if error.gone:
            return None
        raise


def cluster_uid(api: Api) -> str:
    return str(api.get(path_of("namespaces", "kube-system"))["metadata"]["uid"])


def protected_namespaces(api: Api, listed: Iterable[str] = ()) -> frozenset[str]:
    """Namespaces with the label, and those that the user lists."""
    listing = api.list_all(
        path_of("namespaces"), lambda item: item["metadata"]["name"], {"labelSelector": f"{PROTECTED}=true"}
    )
    return frozenset(listing.items) | frozenset(listed)


def live_claims(api: Api, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Uid by namespace and name of those claims that exist."""
    names = sorted(set(wanted))
    if len(names) > FEW:
        keep = set(names)

        def claim(item: Mapping[str, Any]) -> tuple[tuple[str, str], str] | None:
            metadata = item["metadata"]
            key = (metadata["namespace"], metadata["name"])
            return (key, metadata["uid"]) if key in keep else None

        return dict(api.list_all(CLAIMS, claim).items)

    def uid(key: tuple[str, str]) -> str | None:
        try:
            return str(api.get(path_of("persistentvolumeclaims", key[1], key[0]))["metadata"]["uid"])
        except ApiError as error:
            if error.gone:
                return None
            raise

    return {key: found for key, found in zip(names, api.each(uid, names)) if found}


def recycled_now(api: Api) -> frozenset[str]:
    """Names, and C(server:path), of volumes that a pod of the controller manager is emptying.

    Several at once share one template in the controller manager of 1.37, so that a pod may have the name of one volume
    and empty another one (seen): both are believed.

    The pod lies in the namespace of its template, which is C(default) unless the controller manager has another
    one (--pv-recycler-pod-template-filepath-nfs).
    """

    def emptied(pod: Mapping[str, Any]) -> list[str] | None:
        name = pod["metadata"]["name"]
        if not name.startswith(RECYCLER) or (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            return None
        sources = [one["nfs"] for one in pod["spec"].get("volumes") or [] if one.get("nfs")]
        return [name[len(RECYCLER) :], *(f"{one.get('server')}:{one.get('path')}" for one in sources)]

    pods = api.list_all(path_of("pods", namespace="default"), emptied).items
    return frozenset(one for pod in pods for one in pod)


# Provisioners ----------------------------------------------------------------------------------------


def add_provisioner_states(api: Api, volumes: Iterable[Volume]) -> None:
    """Fill in for each volume whether its provisioner runs."""
    volumes = list(volumes)
    states = provisioner_states(api, {one.provisioner for one in volumes if one.provisioner})
    for volume in volumes:
        if volume.provisioner:
            volume.provisioner_state = states[volume.provisioner]


def provisioner_states(api: Api, names: Iterable[str]) -> dict[str, str]:
    """C(running) or C(stopped) for each.

    Running: its lock was renewed within 60 s by the API server's clock. Without a lock, or when the lock is switched
    off: a controller pod is ready. The lock is named after the provisioner with C(-) for C(/)
    (sig-storage-lib-external-provisioner) or for all but letters and digits (csi-lib-utils).
    """
    names = set(names)
    if not names:
        return {}
    held = _held_locks(api, {lock for name in names for lock in _lock_names(name)})
    states = {}
    unclear = set()
    for name in names:
        found = [held[lock] for lock in _lock_names(name) if lock in held]
        if any(found):
            states[name] = "running"
        else:
            unclear.add(name)
            states[name] = "stopped"
    if unclear:
        without_lock = {name for name in unclear if not any(lock in held for lock in _lock_names(name))}
        for name, locks in _ready_controllers(api, unclear):
            if name in without_lock or not locks:
                states[name] = "running"
    return states


def _lock_names(provisioner: str) -> set[str]:
    return {provisioner.replace("/", "-"), re.sub(r"[^a-zA-Z0-9-]", "-", provisioner)}


def _held_locks(api: Api, names: set[str]) -> dict[str, bool]:
    """For each lock that exists whether somebody holds it now."""
    found: dict[str, bool] = {}

    def renewed(time: str | None, now: float) -> bool:
        age = seconds_since(time, now)
        return age is not None and age <= LOCK_SECONDS

    for name in sorted(names):
        query = {"fieldSelector": f"metadata.name={name}"}
        leases = api.list_all(path_of("leases", group="coordination.k8s.io/v1"), lambda item: item["spec"], query)
        points = api.list_all(path_of("endpoints"), lambda item: item["metadata"].get("annotations") or {}, query)
        times = [
            (spec.get("renewTime") if spec.get("holderIdentity") else None, leases.date) for spec in leases.items
        ] + [(_leader(one), points.date) for one in points.items if _LEADER in one]
        if times:
            found[name] = any(renewed(time, now) for time, now in times)
    return found


_LEADER = "control-plane.alpha.kubernetes.io/leader"


def _leader(annotations: Mapping[str, str]) -> str | None:
    found = re.search(r'"renewTime":"([^"]+)"', annotations[_LEADER])
    held = re.search(r'"holderIdentity":"[^"]+"', annotations[_LEADER])
    return found[1] if found and held else None


def _ready_controllers(api: Api, names: set[str]) -> list[tuple[str, bool]]:
    """Name of the provisioner, and whether it takes a lock, of every Deployment or StatefulSet with a ready pod."""

    def controllers(item: Mapping[str, Any]) -> list[tuple[str, bool]] | None:
        if not _controllers.is_ready(item):
            return None
        found = _controllers.provisioners_of(item)
        return [(one.provisioner, one.locks) for one in found if one.provisioner in names] or None

    groups = [
        one for kind in _controllers.KINDS for one in api.list_all(path_of(kind, group="apps/v1"), controllers).items
    ]
    return [one for group in groups for one in group]
