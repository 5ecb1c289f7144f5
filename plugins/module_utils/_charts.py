# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Provisioners that a Helm chart installs: the few inputs of ours in the chart's own words, and the user's values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils._cluster import rewritten

# Values that hold an image: where a string under one of these names is one.
_IMAGE_KEYS = ("image", "repository", "baseRepo")


def release(one: Mapping[str, Any], registry: str) -> dict[str, Any]:
    """A release as kubernetes.core.helm takes it. What the user says goes over what is filled in."""
    filled = _subdir(one) if one["engine"] == "subdir" else _csi(one, registry)
    return {
        "name": one["release"],
        "namespace": one["namespace"],
        "chart": one["chart"],
        "version": one["chart_version"],
        "repository": one["chart_repository"],
        "values": merged(filled, _in_registry(one["values"], registry)),
    }


def _subdir(one: Mapping[str, Any]) -> dict[str, Any]:
    repository, tag = split_image(one["image"])
    return {
        "image": {"repository": repository, "tag": tag},
        "nfs": {"server": one["server"], "path": one["path"]},
        # Classes come from k8s_storage_classes.
        "storageClass": {"create": False, "provisionerName": one["provisioner_name"]},
        "replicaCount": one["replicas"],
        "resources": one["resources"],
        "nodeSelector": one["node_selector"],
        "tolerations": one["tolerations"],
    }


def _csi(one: Mapping[str, Any], registry: str) -> dict[str, Any]:
    return {
        "driver": {"name": one["provisioner_name"]},
        "controller": {"replicas": one["replicas"]},
        "storageClass": {"create": False},
        "volumeSnapshotClass": {"create": False},
        **({"image": {"baseRepo": registry.rstrip("/")}} if registry else {}),
    }


def split_image(image: str) -> tuple[str, str]:
    """Repository and tag; a digest stays with the tag, as the charts put a colon between them."""
    name, at, digest = image.partition("@")
    repository, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        repository, tag = name, ""
    return repository, f"{tag}{at}{digest}"


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """C(above) over C(below), mapping by mapping, as Helm merges values."""
    found = dict(below)
    for key, value in above.items():
        old = found.get(key)
        found[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return found


def _in_registry(values: Any, registry: str, key: str = "") -> Any:
    """The user's values with every image in the registry."""
    if isinstance(values, Mapping):
        return {name: _in_registry(value, registry, name) for name, value in values.items()}
    if isinstance(values, list):
        return [_in_registry(value, registry) for value in values]
    if not registry or key not in _IMAGE_KEYS or not isinstance(values, str):
        return values
    if key == "baseRepo":
        return registry.rstrip("/")
    # The charts of the CSI driver write a repository below baseRepo with a slash before it.
    return values if values.startswith("/") else rewritten(values, registry)
