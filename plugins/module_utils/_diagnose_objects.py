# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading objects of the API, which may look like anything: never an exception over a gap."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from ansible_collections.clusterkit.storage.plugins.module_utils import _nfs_csi, _quantity

Object = Mapping[str, Any]
Objects = Optional[Sequence[Object]]

CLASS_ANNOTATION = "volume.beta.kubernetes.io/storage-class"
DEFAULT_CLASS = ("storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class")
NO_PROVISIONER = "kubernetes.io/no-provisioner"


# Fields ------------------------------------------------------------------------------------------------


def get(item: Any, *path: str) -> Any:
    """The value at the end of C(path), or None where it leads nowhere."""
    for key in path:
        if not isinstance(item, Mapping):
            return None
        item = item.get(key)
    return item


def text(item: Any, *path: str) -> str:
    """As one word: what has blanks in it is no name of the API, and must not make a sentence longer."""
    found = get(item, *path)
    if isinstance(found, bool) or not isinstance(found, (str, int, float)):
        return ""
    return "_".join(str(found).split())


def words(item: Any, *path: str) -> str:
    """Prose on one line."""
    found = get(item, *path)
    return " ".join(found.split()) if isinstance(found, str) else ""


def number(item: Any, *path: str) -> int | None:
    found = get(item, *path)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def mapping(item: Any, *path: str) -> Mapping[str, Any]:
    found = get(item, *path)
    return {key: value for key, value in found.items() if isinstance(key, str)} if isinstance(found, Mapping) else {}


def texts(item: Any, *path: str) -> list[str]:
    found = get(item, *path)
    return [one for one in found if isinstance(one, str)] if isinstance(found, (list, tuple)) else []


def entries(item: Any, *path: str) -> list[Object]:
    found = get(item, *path)
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, (list, tuple)) else []


def name_of(item: Any) -> str:
    return text(item, "metadata", "name")


def namespace_of(item: Any) -> str:
    return text(item, "metadata", "namespace")


def full_name(item: Any) -> str:
    """C(namespace/name), or the name alone for objects of the cluster."""
    namespace = namespace_of(item)
    return f"{namespace}/{name_of(item)}" if namespace else name_of(item)


def size(item: Any, *path: str) -> int | None:
    """A quantity in bytes; None if there is none that can be read."""
    try:
        return _quantity.to_bytes(text(item, *path))
    except (ValueError, OverflowError):
        return None


def few(names: Iterable[str], most: int = 2) -> str:
    """At most two of them, each as one word, so that sentences stay short: together at most five words."""
    found = ["_".join(one.split()) for one in names]
    told = " and ".join(found[:most])
    return f"{told}, {len(found) - most} more" if len(found) > most else told


def labels_in_words(labels: Mapping[str, Any]) -> str:
    return few(f"{key}={text(labels, key)}" for key in sorted(labels))


# Objects -------------------------------------------------------------------------------------------------


def claims_of(pod: Any) -> list[str]:
    """Names of the claims that a pod, or the template of one, mounts."""
    named = (text(one, "persistentVolumeClaim", "claimName") for one in entries(pod, "spec", "volumes"))
    return [one for one in named if one]


def class_of(item: Any) -> str | None:
    """StorageClass of a claim or volume: None if the field is missing, empty if it says that there is to be none.

    The annotation, older than the field, wins (GetPersistentVolumeClaimClass, k8s.io/component-helpers).
    """
    annotation = get(item, "metadata", "annotations", CLASS_ANNOTATION)
    if isinstance(annotation, str):
        return "_".join(annotation.split())
    if not isinstance(get(item, "spec", "storageClassName"), str):
        return None
    return text(item, "spec", "storageClassName")


@dataclass(frozen=True)
class Offer:
    """A volume, by what decides whether a claim may have it."""

    volume: Object
    name: str
    size: int | None
    access_modes: frozenset[str]
    mode: str
    storage_class: str
    labels: Mapping[str, Any]
    holder: str  # namespace/name of the claim that it names
    holder_uid: str
    phase: str
    deleting: bool

    @classmethod
    def of(cls, volume: Object) -> Offer:
        reference = mapping(volume, "spec", "claimRef")
        return cls(
            volume,
            name_of(volume),
            size(volume, "spec", "capacity", "storage"),
            frozenset(texts(volume, "spec", "accessModes")),
            text(volume, "spec", "volumeMode") or "Filesystem",
            class_of(volume) or "",
            mapping(volume, "metadata", "labels"),
            f"{text(reference, 'namespace')}/{text(reference, 'name')}" if reference else "",
            text(reference, "uid"),
            phase_of(volume),
            is_deleting(volume),
        )

    @property
    def is_free(self) -> bool:
        return not self.holder and self.phase == "Available" and not self.deleting

    def is_for(self, claim: Object) -> bool:
        """Whether it is bound to the claim or reserved for it (IsVolumeBoundToClaim)."""
        if not self.holder or self.holder != full_name(claim):
            return False
        return self.holder_uid in ("", text(claim, "metadata", "uid"))


def is_deleting(item: Any) -> bool:
    return bool(text(item, "metadata", "deletionTimestamp"))


def phase_of(item: Any) -> str:
    return text(item, "status", "phase") or "Pending"


@dataclass(frozen=True)
class Source:
    """Where the files of a volume are."""

    server: str
    path: str
    options: tuple[str, ...] = ()
    volume: str = ""  # as kubelet calls it: the PersistentVolume, or the pod's own name for an inline volume

    @property
    def what(self) -> str:
        return f"{self.server}:{self.path}"


def source_of(volume: Any, name: str) -> Source | None:
    """Of the C(spec) of a PersistentVolume, or of an entry of a pod's volumes.

    None if it is no NFS, or says nothing about where its files are.
    """
    options = tuple(texts(volume, "mountOptions"))
    nfs, csi = mapping(volume, "nfs"), mapping(volume, "csi")
    if nfs:
        return Source(text(nfs, "server"), text(nfs, "path"), options, name)
    if text(csi, "driver") == _nfs_csi.DRIVER:
        attributes = mapping(csi, "volumeAttributes")
        server, path = _nfs_csi.place({key: text(attributes, key) for key in attributes})
        return Source(server or "", path, options, name) if path else None
    return None


def containers_of(pod: Any) -> list[Object]:
    return [*entries(pod, "spec", "initContainers"), *entries(pod, "spec", "containers")]


def statuses_of(pod: Any) -> list[Object]:
    return [*entries(pod, "status", "initContainerStatuses"), *entries(pod, "status", "containerStatuses")]


def selects(selector: Any, labels: Mapping[str, Any]) -> bool:
    """Whether a LabelSelector fits labels; an empty one fits all."""
    if any(
        text(labels, key) != text(mapping(selector, "matchLabels"), key) for key in mapping(selector, "matchLabels")
    ):
        return False
    for one in entries(selector, "matchExpressions"):
        key, operator, values = text(one, "key"), text(one, "operator"), texts(one, "values")
        fits = {
            "In": key in labels and text(labels, key) in values,
            "NotIn": key not in labels or text(labels, key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }
        if not fits.get(operator, False):
            return False
    return True


def event_time(event: Any) -> str:
    return text(event, "lastTimestamp") or text(event, "series", "lastObservedTime") or text(event, "eventTime")
