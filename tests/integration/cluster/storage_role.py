# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs of the role k8s_storage in the cluster of the tests, and what they are looked at with."""

from __future__ import annotations

import subprocess
from collections import Counter
from typing import Any

from .cluster import Cluster, volume

NAME = "storage.example.org/nfs"
SERVER = "192.0.2.10"
CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
DEPLOYMENTS = "/apis/apps/v1/namespaces/role-test/deployments"
PROVISIONER: dict[str, Any] = {
    "name": "role-test",
    "namespace": "role-test",
    "provisioner_name": NAME,
    "server": SERVER,
    "path": "/nfs/dpv",
}
CLASS: dict[str, Any] = {"name": "role-test", "provisioner": NAME, "reclaim_policy": "Delete"}


class Run:
    def __init__(self, done: subprocess.CompletedProcess[str], modules: Counter[str]) -> None:
        self.ok = done.returncode == 0
        self.words = " ".join((done.stdout + done.stderr).replace("\\n", " ").replace('\\"', '"').split())
        self.modules = modules

    @property
    def changes_nothing(self) -> bool:
        return self.ok and "changed=0" in self.words


def clear(cluster: Cluster) -> None:
    for one in cluster.done("GET", CLASSES)["items"]:
        cluster.done("DELETE", f"{CLASSES}/{one['metadata']['name']}")
    cluster.request("DELETE", f"{DEPLOYMENTS}?propagationPolicy=Background")


def static(count: int) -> dict[str, Any]:
    numbers = [f"static-{number:03d}" for number in range(count)]
    return {
        "volumes": [
            {"name": name, "capacity": "1Gi", "storage_class": "static", "server": SERVER, "path": f"/nfs/{name}"}
            for name in numbers
        ],
        "claims": [
            {"name": name, "storage_class": "static", "request": "1Gi", "volume_name": name} for name in numbers
        ],
    }


def everything(cluster: Cluster) -> Any:
    """What the role could change, without what the cluster itself counts."""

    def plain(item: dict[str, Any]) -> dict[str, Any]:
        metadata = {name: item["metadata"].get(name) for name in ("name", "uid", "labels", "annotations")}
        return {"metadata": metadata, "spec": item.get("spec"), "parameters": item.get("parameters")}

    kinds = ("/api/v1/persistentvolumes", "/api/v1/persistentvolumeclaims", CLASSES, DEPLOYMENTS)
    return [plain(item) for kind in kinds for item in cluster.done("GET", kind)["items"]]


def storage_class(cluster: Cluster, name: str) -> dict[str, Any]:
    found: dict[str, Any] = cluster.done("GET", f"{CLASSES}/{name}")
    return found


def make_class(cluster: Cluster, name: str, **more: Any) -> None:
    cluster.done("POST", CLASSES, {"metadata": {"name": name}, "provisioner": NAME, **more})


def provisioned(cluster: Cluster, name: str, policy: str = "Delete", **more: Any) -> None:
    """A volume as the provisioner makes it, Bound to a claim of its name."""
    cluster.done(
        "POST",
        "/api/v1/persistentvolumes",
        volume(name, policy=policy, provisioner=NAME, storage_class="role-test", **more),
    )
    cluster.make_claim(name, storage_class="role-test", volume_name=name)
    cluster.wait_bound(name)


def policy(cluster: Cluster, name: str) -> tuple[str, str | None]:
    one = cluster.volume(name)
    held = one["metadata"].get("annotations", {}).get("storage.clusterkit/previous-policy")
    return one["spec"]["persistentVolumeReclaimPolicy"], held
