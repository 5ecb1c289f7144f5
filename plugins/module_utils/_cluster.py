# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wanted of a cluster, with what follows from one list for the other, and what the live cluster said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _mount_options, _nfs_csi

DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
_DEFAULT_CLASS_BEFORE = "storageclass.beta.kubernetes.io/is-default-class"
_DEFAULT_NAME = "fuseim.pri/ifs"


@dataclass
class Cluster:
    """What is wanted, with defaults filled in, and what the live cluster said."""

    provisioners: list[dict[str, Any]] = field(default_factory=list)
    classes: list[dict[str, Any]] = field(default_factory=list)
    volumes: list[dict[str, Any]] = field(default_factory=list)
    claims: list[dict[str, Any]] = field(default_factory=list)
    live_classes: list[dict[str, Any]] = field(default_factory=list)
    live_volumes: list[dict[str, Any]] = field(default_factory=list)
    live_claims: list[dict[str, Any]] = field(default_factory=list)
    controllers: list[dict[str, Any]] = field(default_factory=list)  # records of _controllers
    provisioner_states: Mapping[str, str] = field(default_factory=dict)
    helm: str | None = None  # the program; None: nobody has looked
    registry: str = ""
    allow_take_default: bool = False
    allow_delete_released: bool = False

    def complete(self) -> None:
        """Fill in what follows from another entry."""
        for one in self.provisioners:
            one["image"] = rewritten(one["image"], self.registry)
            one["release"] = one["release"] or one["name"]
            if one["engine"] == "csi" and one["provisioner_name"] == _DEFAULT_NAME:
                one["provisioner_name"] = _nfs_csi.DRIVER
        places = {one["provisioner_name"]: one for one in self.provisioners if one["engine"] == "csi" and one["server"]}
        for one in self.classes:
            found = places.get(one["provisioner"])
            if found:
                told = _nfs_csi.told(one["parameters"])
                derived = {"server": found["server"], "share": found["path"]}
                missing = {key: value for key, value in derived.items() if key not in told}
                one["parameters"] = {**missing, **one["parameters"]}

    @property
    def installed(self) -> list[tuple[int, dict[str, Any]]]:
        """Provisioners that run once this is done, whoever installs them, with their place in the list."""
        return [(index, one) for index, one in enumerate(self.provisioners) if one["engine"] != "none"]

    @property
    def class_names(self) -> set[str]:
        return {one["name"] for one in self.classes} | {one["metadata"]["name"] for one in self.live_classes}

    @property
    def live_defaults(self) -> list[str]:
        return [one["metadata"]["name"] for one in self.live_classes if is_default(one)]

    def engine_of(self, provisioner: str) -> str:
        """The engine behind a name; empty if it is none of ours."""
        return next((one["engine"] for _index, one in self.installed if one["provisioner_name"] == provisioner), "")


def rewritten(image: str, registry: str) -> str:
    """The image in another registry; only what stands before the first slash is a registry, and not always."""
    if not registry:
        return image
    first, slash, rest = image.partition("/")
    has_registry = bool(slash) and ("." in first or ":" in first or first == "localhost")
    return f"{registry.rstrip('/')}/{rest if has_registry else image}"


def is_default(storage_class: Mapping[str, Any]) -> bool:
    annotations = storage_class["metadata"].get("annotations") or {}
    return "true" in (annotations.get(DEFAULT_CLASS), annotations.get(_DEFAULT_CLASS_BEFORE))


def nfs_place(volume: Mapping[str, Any]) -> tuple[str, str] | None:
    """Server and path of a wanted volume; None if it is a CSI volume of which they are not known."""
    csi = volume.get("csi")
    if not csi:
        return (volume["server"], volume["path"]) if volume["server"] and volume["path"] else None
    server, path = _nfs_csi.place(csi["attributes"])
    return (server, path) if csi["driver"] == _nfs_csi.DRIVER and server and path else None


def directories_in_use(cluster: Cluster) -> Iterator[tuple[str, dict[str, Any], str, str, list[str]]]:
    """Each directory on a server that something of ours lies in: its place, the item, server, path, mount options."""
    for index, one in enumerate(cluster.provisioners):
        # What the CSI driver makes lies where its classes say.
        if one["engine"] == "csi" or not one["server"] or not one["path"]:
            continue
        options = [
            option
            for storage_class in cluster.classes
            if storage_class["provisioner"] == one["provisioner_name"]
            for option in _mount_options.parse(storage_class["mount_options"])
        ]
        yield f"k8s_storage_provisioners[{index}]", one, one["server"], one["path"], options
    for index, one in enumerate(cluster.classes):
        told = _nfs_csi.told(one["parameters"])
        if cluster.engine_of(one["provisioner"]) == "csi" and told.get("server") and told.get("share"):
            options = _mount_options.parse(one["mount_options"])
            yield f"k8s_storage_classes[{index}]", one, told["server"], told["share"], options
    for index, one in enumerate(cluster.volumes):
        place = nfs_place(one)
        if place:
            yield f"k8s_storage_volumes[{index}]", one, *place, _mount_options.parse(one["mount_options"])
