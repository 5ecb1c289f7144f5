# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the inputs of the cluster are compared with, read in one go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _controllers, _volume_set
from ansible_collections.clusterkit.storage.plugins.module_utils._api_answers import ApiError, path_of
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import PREVIOUS_POLICY, PROVISIONED_BY

if TYPE_CHECKING:
    from ansible_collections.clusterkit.storage.plugins.module_utils._api import Api

CLASSES = path_of("storageclasses", group="storage.k8s.io/v1")
_ANNOTATIONS = (PROVISIONED_BY, PREVIOUS_POLICY)
_SPEC = (
    "accessModes", "capacity", "claimRef", "csi", "nfs", "persistentVolumeReclaimPolicy", "storageClassName",
)  # fmt: skip


def read(api: Api, claims: Any) -> dict[str, Any]:
    """C(claims): what the user wrote as list of claims, not checked yet. Raises ApiError."""
    volumes = api.list_all(_volume_set.VOLUMES, volume).items
    return {
        "version": str(api.get("/version").get("gitVersion", "")),
        "namespaces": sorted(api.list_all(path_of("namespaces"), lambda item: item["metadata"]["name"]).items),
        "storage_classes": api.list_all(CLASSES, _without_history).items,
        "volumes": volumes,
        "claims": [one for one in api.each(lambda key: _claim(api, *key), _names(claims)) if one],
        "controllers": [one for kind in _controllers.KINDS for one in _records(api, kind)],
        "provisioner_states": _volume_set.provisioner_states(api, doomed_by(volumes)),
    }


def volume(item: Mapping[str, Any]) -> dict[str, Any]:
    """A PersistentVolume without what is not compared: there may be tens of thousands."""
    metadata, spec = item["metadata"], item["spec"]
    annotations = metadata.get("annotations") or {}
    return {
        "metadata": {
            "name": metadata["name"],
            "labels": metadata.get("labels") or {},
            "annotations": {name: annotations[name] for name in _ANNOTATIONS if name in annotations},
        },
        "spec": {name: spec[name] for name in _SPEC if name in spec},
        "status": {"phase": (item.get("status") or {}).get("phase", "")},
    }


def doomed_by(volumes: Sequence[Mapping[str, Any]]) -> set[str]:
    """Provisioners that are going to destroy what is in a volume as soon as they run."""
    return {name for name in (doom_of(one) for one in volumes) if name}


def doom_of(one: Mapping[str, Any]) -> str:
    """The provisioner that destroys this volume as soon as it runs; empty if none does."""
    waits = (one.get("status") or {}).get("phase") in ("Released", "Failed")
    if not waits or one["spec"].get("persistentVolumeReclaimPolicy") != "Delete":
        return ""
    return str((one["metadata"].get("annotations") or {}).get(PROVISIONED_BY, ""))


def _without_history(item: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {name: value for name, value in item["metadata"].items() if name != "managedFields"}
    return {**item, "metadata": metadata}


def _records(api: Api, kind: str) -> list[dict[str, Any]]:
    listing = api.list_all(path_of(kind, group="apps/v1"), lambda item: _controllers.records_of(kind, item) or None)
    return [record for records in listing.items for record in records]


def _names(claims: Any) -> list[tuple[str, str]]:
    found = []
    for one in claims if isinstance(claims, list) else []:
        if isinstance(one, Mapping) and isinstance(one.get("name"), str):
            found.append((str(one.get("namespace") or "default"), one["name"]))
    return sorted(set(found))


def _claim(api: Api, namespace: str, name: str) -> dict[str, Any] | None:
    try:
        item = api.get(path_of("persistentvolumeclaims", name, namespace))
    except ApiError as error:
        # A name that cannot be one is for the check of the inputs to say.
        if error.gone or error.status == 400:
            return None
        raise
    metadata = item["metadata"]
    return {
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
        "spec": item["spec"],
        "status": {"phase": (item.get("status") or {}).get("phase", "")},
    }
