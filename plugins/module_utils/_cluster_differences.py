# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wanted otherwise than it is there, of what Kubernetes cannot change in an object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Item = Mapping[str, Any]
Difference = tuple[str, Any, Any]  # key, old and new value


def of_class(one: Item, live: Item) -> list[Difference]:
    """Key, old and new value of each field of a StorageClass that cannot be changed."""
    pairs = [
        ("provisioner", live.get("provisioner"), one["provisioner"]),
        ("reclaim_policy", live.get("reclaimPolicy") or "Delete", one["reclaim_policy"]),
        ("volume_binding_mode", live.get("volumeBindingMode") or "Immediate", one["volume_binding_mode"]),
    ]
    old, new = live.get("parameters") or {}, one["parameters"]
    pairs += [(f"parameters.{key}", old.get(key), new.get(key)) for key in sorted({*old, *new})]
    return [pair for pair in pairs if pair[1] != pair[2]]


def of_volume(one: Item, live: Item) -> list[Difference]:
    """Key, old and new value of what cannot be changed in a PersistentVolume: its source."""
    nfs, csi = live["spec"].get("nfs") or {}, live["spec"].get("csi") or {}
    if one["csi"]:
        wanted = one["csi"]
        pairs = [
            ("csi.driver", csi.get("driver"), wanted["driver"]),
            ("csi.handle", csi.get("volumeHandle"), wanted["handle"]),
            ("csi.attributes", csi.get("volumeAttributes") or {}, wanted["attributes"]),
        ]
    else:
        pairs = [("server", nfs.get("server"), one["server"]), ("path", nfs.get("path"), one["path"])]
    return [pair for pair in pairs if pair[1] != pair[2]]


def of_claim(one: Item, live: Item) -> list[Difference]:
    """Key, old and new value of what cannot be changed in a claim. What is not asked for is left to Kubernetes."""
    spec = live["spec"]
    selector = spec.get("selector") or {}
    wanted_labels = (one["selector"] or {}).get("match_labels") or {}
    pairs: list[Difference] = [("access_modes", sorted(spec.get("accessModes") or []), sorted(one["access_modes"]))]
    if one["storage_class"] is not None and spec.get("storageClassName") is not None:
        pairs.append(("storage_class", spec["storageClassName"], one["storage_class"]))
    if one["volume_name"] and spec.get("volumeName"):
        pairs.append(("volume_name", spec["volumeName"], one["volume_name"]))
    if selector.get("matchExpressions") or (selector.get("matchLabels") or {}) != wanted_labels:
        pairs.append(("selector", selector, {"matchLabels": wanted_labels} if wanted_labels else {}))
    return [pair for pair in pairs if pair[1] != pair[2]]
