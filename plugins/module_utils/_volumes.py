# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PersistentVolumes as records: one small object a volume, the same keys everywhere."""

from __future__ import annotations

import functools
import operator
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Optional, TypeVar

from ansible_collections.clusterkit.storage.plugins.module_utils import _nfs_csi, _quantity
from ansible_collections.clusterkit.storage.plugins.module_utils._server_map import ServerMap

SCHEMA = 1
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
BOUND_BY_CONTROLLER = "pv.kubernetes.io/bound-by-controller"
# What the policy was before it was set to Retain so that an upgrade or a teardown costs no data.
PREVIOUS_POLICY = "storage.clusterkit/previous-policy"
_CLASS_ANNOTATION = "volume.beta.kubernetes.io/storage-class"

Claim = Optional[tuple[str, str, Optional[str]]]  # namespace, name, uid


Text = TypeVar("Text", str, Optional[str])


def _shared(text: Text) -> Text:
    """The same words come back in thousands of volumes: keep one copy."""
    return None if text is None else sys.intern(text)


# Thousands of volumes have a handful of sizes.
_bytes = functools.lru_cache(maxsize=1024)(_quantity.to_bytes)


class Volume:
    """A PersistentVolume. Slots, not a dictionary: a cluster has tens of thousands."""

    __slots__ = (
        "access_modes", "annotations", "capacity", "claim", "csi_attributes", "csi_driver", "csi_handle", "deleting",
        "driver", "finalizers", "labels", "mount_options", "name", "path", "phase", "policy", "provisioner",
        "provisioner_state", "read_only", "released_at", "resource_version", "server", "server_dir", "share",
        "storage_class", "uid",
    )  # fmt: skip

    name: str
    uid: str
    resource_version: str
    phase: str
    deleting: str | None
    policy: str
    storage_class: str
    provisioner: str | None
    provisioner_state: str
    driver: str
    csi_driver: str | None
    csi_handle: str | None
    csi_attributes: Mapping[str, str]
    server: str | None
    path: str | None
    share: str | None
    server_dir: str | None
    read_only: bool
    capacity: int
    access_modes: tuple[str, ...]
    mount_options: tuple[str, ...]
    claim: Claim
    finalizers: tuple[str, ...]
    released_at: str | None
    annotations: Mapping[str, str]
    labels: Mapping[str, str]

    @classmethod
    def of(cls, item: Mapping[str, Any]) -> Volume:
        """From the object that the API gives. What other objects tell (share, state of the provisioner) comes later."""
        metadata, spec, status = item["metadata"], item.get("spec") or {}, item.get("status") or {}
        annotations = metadata.get("annotations") or {}
        nfs, csi = spec.get("nfs"), spec.get("csi")
        attributes = (csi or {}).get("volumeAttributes") or {}
        server, path = None, None
        if nfs:
            server, path = nfs.get("server"), nfs.get("path")
        elif csi and csi.get("driver") == _nfs_csi.DRIVER:
            server, path = _nfs_csi.place(attributes)
        reference = spec.get("claimRef")
        phase = _shared(status.get("phase") or "Pending")
        self = cls()
        self.name = metadata["name"]
        self.uid = metadata.get("uid", "")
        self.resource_version = metadata.get("resourceVersion", "")
        self.phase = phase
        self.deleting = metadata.get("deletionTimestamp")
        self.policy = _shared(spec.get("persistentVolumeReclaimPolicy") or "Retain")
        self.storage_class = _shared(annotations.get(_CLASS_ANNOTATION) or spec.get("storageClassName") or "")
        self.provisioner = _shared(annotations.get(PROVISIONED_BY) or (csi or {}).get("driver"))
        self.provisioner_state = "unknown"
        self.driver = "nfs" if nfs is not None else "csi" if csi is not None else "other"
        self.csi_driver = _shared((csi or {}).get("driver"))
        self.csi_handle = (csi or {}).get("volumeHandle")
        self.csi_attributes = attributes
        self.server = _shared(server)
        self.path = path
        self.share = None
        self.server_dir = None
        self.read_only = bool((nfs or csi or {}).get("readOnly", False))
        self.capacity = _bytes((spec.get("capacity") or {}).get("storage", "0"))
        self.access_modes = tuple(map(sys.intern, spec.get("accessModes") or ()))
        self.mount_options = tuple(map(sys.intern, spec.get("mountOptions") or ()))
        self.claim = None
        if reference:
            namespace = _shared(reference.get("namespace") or "")
            self.claim = (namespace, reference.get("name") or "", reference.get("uid") or None)
        self.finalizers = tuple(map(sys.intern, metadata.get("finalizers") or ()))
        # Failed comes after Released: the time of the later one is the safe side of "older than".
        self.released_at = status.get("lastPhaseTransitionTime") if phase in ("Released", "Failed") else None
        self.annotations = {sys.intern(key): _shared(value) for key, value in annotations.items()}
        self.labels = {sys.intern(key): _shared(value) for key, value in (metadata.get("labels") or {}).items()}
        return self

    def record(self) -> dict[str, Any]:
        """As plain data; C(from_record) reads it back."""
        plain = {name: getattr(self, name) for name in _PLAIN}
        csi = {"driver": self.csi_driver, "handle": self.csi_handle, "attributes": dict(self.csi_attributes)}
        claim = dict(zip(("namespace", "name", "uid"), self.claim)) if self.claim else None
        return {
            "schema": SCHEMA,
            **plain,
            "csi": csi if self.csi_driver else None,
            "claim": claim,
            "access_modes": list(self.access_modes),
            "mount_options": list(self.mount_options),
            "finalizers": list(self.finalizers),
            "annotations": dict(self.annotations),
            "labels": dict(self.labels),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Volume:
        """Raises ValueError when this is no record of a volume, or of a later schema."""
        if record.get("schema") != SCHEMA:
            raise ValueError(f"schema is {record.get('schema')!r}; expected {SCHEMA}")
        try:
            self, csi, claim = cls(), record["csi"] or _NO_CSI, record["claim"]
            (
                self.name, self.uid, self.resource_version, self.phase, self.deleting, self.policy,
                self.storage_class, self.provisioner, self.provisioner_state, self.driver, self.server, self.path,
                self.share, self.server_dir, self.read_only, self.capacity, self.released_at, self.annotations,
                self.labels,
            ) = _values(record)  # fmt: skip
            self.access_modes = tuple(record["access_modes"])
            self.mount_options = tuple(record["mount_options"])
            self.finalizers = tuple(record["finalizers"])
            self.csi_driver, self.csi_handle = csi.get("driver"), csi.get("handle")
            self.csi_attributes = csi.get("attributes") or _NO_CSI
            self.claim = (claim["namespace"], claim["name"], claim["uid"]) if claim else None
            return self
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no record of a volume: {error}") from error

    @property
    def claim_name(self) -> str:
        return f"{self.claim[0]}/{self.claim[1]}" if self.claim else ""

    @property
    def is_dynamic(self) -> bool:
        return PROVISIONED_BY in self.annotations

    def place_in(self, servers: ServerMap) -> None:
        """Find the share that holds the volume, and the directory on its host."""
        place = servers.find(self.server, self.path)
        if place is not None:
            self.share, self.server_dir = place.share, place.directory


_PLAIN = (
    "name", "uid", "resource_version", "phase", "deleting", "policy", "storage_class", "provisioner",
    "provisioner_state", "driver", "server", "path", "share", "server_dir", "read_only", "capacity", "released_at",
)  # fmt: skip
_NO_CSI: Mapping[str, Any] = {}
_values = operator.itemgetter(*_PLAIN, "annotations", "labels")


def counts(volumes: Iterable[Volume]) -> dict[str, Any]:
    """How many volumes, and how many bytes, by phase, class and policy."""
    found: dict[str, Any] = {"volumes": 0, "bytes": 0}
    for what in ("phase", "storage_class", "policy"):
        numbers: Counter[str] = Counter()
        sizes: Counter[str] = Counter()
        for volume in volumes:
            numbers[getattr(volume, what)] += 1
            sizes[getattr(volume, what)] += volume.capacity
        found[f"by_{what}"] = {key: {"volumes": numbers[key], "bytes": sizes[key]} for key in sorted(numbers)}
        found |= {"volumes": sum(numbers.values()), "bytes": sum(sizes.values())}
    return found
