# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who mounts NFS without a PersistentVolume: pods, workloads that may make pods, and provisioners with their shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ansible_collections.clusterkit.storage.plugins.module_utils._api_answers import path_of

if TYPE_CHECKING:
    from ansible_collections.clusterkit.storage.plugins.module_utils._api import Api

_TEMPLATE = ("spec", "template", "spec")
# Kind, the collection, and the way from an object to the spec of its pods.
_SOURCES = (
    ("Pod", path_of("pods"), ("spec",)),
    ("Deployment", path_of("deployments", group="apps/v1"), _TEMPLATE),
    ("StatefulSet", path_of("statefulsets", group="apps/v1"), _TEMPLATE),
    ("DaemonSet", path_of("daemonsets", group="apps/v1"), _TEMPLATE),
    ("ReplicaSet", path_of("replicasets", group="apps/v1"), _TEMPLATE),
    ("ReplicationController", path_of("replicationcontrollers"), _TEMPLATE),
    ("Job", path_of("jobs", group="batch/v1"), _TEMPLATE),
    ("CronJob", path_of("cronjobs", group="batch/v1"), ("spec", "jobTemplate", *_TEMPLATE)),
)


def read(api: Api) -> list[dict[str, Any]]:
    """Return {who, server, path, claim, provisioner} of each mount, once. Raises ApiError.

    C(provisioner): the name of one that mounts the root of its share to make and remove directories there; it uses
    none of them itself. None for all others. C(claim): what a provisioner mounts by a claim, as namespace/name.
    Without a server, C(path) is a directory of whichever node the pod runs on (hostPath).
    """
    found: dict[tuple[str | None, ...], str] = {}
    for kind, path, way in _SOURCES:

        def named(item: Mapping[str, Any], kind: str = kind, way: Sequence[str] = way) -> tuple[str, Any] | None:
            places, metadata = mounted(item, way), item["metadata"]
            return (f"{kind} {metadata['namespace']}/{metadata['name']}", places) if places else None

        for name, places in api.list_all(path, named).items:
            for place in places:
                found.setdefault(place, name)
    keys = ("server", "path", "claim", "provisioner")
    return [{"who": who, **dict(zip(keys, place))} for place, who in found.items()]


def mounted(item: Mapping[str, Any], way: Sequence[str]) -> list[tuple[str | None, ...]]:
    """Server, path, claim and provisioner of what the pods of an object mount."""
    spec = item
    for step in way:
        spec = spec.get(step) or {}
    names = [
        variable.get("value")
        for container in spec.get("containers") or []
        for variable in container.get("env") or []
        if variable.get("name") == "PROVISIONER_NAME"
    ]
    provisioner = names[0] if names else None
    found: list[tuple[str | None, ...]] = []
    for volume in spec.get("volumes") or []:
        nfs, claim, host = (volume.get(name) for name in ("nfs", "persistentVolumeClaim", "hostPath"))
        if nfs:
            found.append((nfs.get("server") or "", nfs.get("path") or "", None, provisioner))
        elif host and host.get("path"):
            found.append((None, host["path"], None, None))
        elif claim and provisioner:
            found.append((None, None, f"{item['metadata']['namespace']}/{claim['claimName']}", provisioner))
    return found
