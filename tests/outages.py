# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes, mounts and pods in an outage, as nfs_mounts_info and pod_info tell of them."""

from __future__ import annotations

from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils._pods import PodSet
from ansible_collections.clusterkit.storage.plugins.module_utils._recover_facts import Host

NOW = "2026-01-01T12:00:00Z"
OVER, LEAVING = "2026-01-01T11:59:00Z", "2026-01-01T12:00:30Z"
SERVERS = ("192.0.2.10", "192.0.2.11")


def uid(number: int) -> str:
    return f"00000000-0000-0000-0000-{number:012d}"


def pod(number: int, **more: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "kind": "Pod",
        "namespace": "shop",
        "name": f"p{number}",
        "uid": uid(number),
        "static_uid": None,
        "resource_version": "7",
        "node": "node1",
        "phase": "Running",
        "deleting": None,
        "finalizers": [],
        "owner": "StatefulSet p",
        "volumes": [{"name": "data", "kind": "nfs", "source": f"{SERVERS[0]}:/nfs/{number}"}],
        **more,
    }


def mount(number: int, for_pod: int | str | None = None, **more: Any) -> dict[str, Any]:
    path = f"/srv/{number}"
    if for_pod is not None:
        name = for_pod if isinstance(for_pod, str) else uid(for_pod)
        path = f"/var/lib/kubelet/pods/{name}/volumes/kubernetes.io~nfs/v{number}"
    server = more.pop("server", SERVERS[0])
    return {
        "path": path,
        "source": f"{server}:/nfs/{number}",
        "server": server,
        "mount_id": 100 + number,
        "parent_id": 1,
        "major_minor": "0:50",
        "options": ["rw", "relatime"],
        "super_options": ["rw", "vers=4.2", f"addr={server}"],
        "shares_superblock_with": [],
        "stacked": False,
        "pod": None if for_pod is None else {"uid": name, "volume": f"v{number}", "kind": "nfs"},
        "health": "unreachable",
        "latency": None,
        "detail": "",
        **more,
    }


def host(*mounts: dict[str, Any], answers: bool = False, **more: Any) -> Host:
    servers = [{"address": one, "port": 2049, "answers": answers} for one in SERVERS]
    return Host(**{"name": "node1", "mounts": mounts, "servers": servers, "automounts": [], **more})


def cluster(*pods: dict[str, Any], **more: Any) -> PodSet:
    nodes = [
        {"schema": 1, "kind": "Node", "name": f"node{n}", "ready": n == 1, "since": OVER, "addresses": [f"10.0.0.{n}"]}
        for n in (1, 2, 3)
    ]
    return PodSet(**{"cluster_uid": "c", "listed_at": NOW, "nodes": nodes, "pods": list(pods), **more})
