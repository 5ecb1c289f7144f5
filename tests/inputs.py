# SPDX-License-Identifier: GPL-3.0-or-later
"""Inputs of a site with a server and a node, for tests of what is found wrong with them."""

from __future__ import annotations

import copy
from typing import Any

import yaml
from ansible_collections.clusterkit.storage.plugins.module_utils import _inputs
from ansible_collections.clusterkit.storage.tests.documentation import ROOT, contradictions

SPECS = {
    role: yaml.safe_load((ROOT / "roles" / role / "meta" / "argument_specs.yml").read_text())["argument_specs"]["main"][
        "options"
    ]
    for role in ("nfs_server", "nfs_client", "k8s_storage")
}
DEBIAN = {"os_family": "Debian", "distribution": "Debian", "distribution_version": "13", "system": "Linux"}
PROVISIONER = {"server": "192.0.2.1", "path": "/nfs/dpv"}
PYTHON = {"version": {"major": 3, "minor": 13}}


NOTHING_LIVE: dict[str, Any] = {
    "host": "localhost",
    "variables": {},
    "error": "",
    "version": "v1.37.2",
    "storage_classes": [],
    "volumes": [],
    "claims": [],
    "namespaces": ["default"],
    "controllers": [],
    "provisioner_states": {},
    "helm": None,
}


def host(name: str, group: str, **variables: Any) -> dict[str, Any]:
    address = {"server1": "192.0.2.1", "node1": "192.0.2.11", "node2": "192.0.2.12"}.get(name, "192.0.2.99")
    return {
        "name": name,
        "address": address,
        "groups": [group],
        "variables": variables,
        "facts": {**DEBIAN, "python": PYTHON, "all_ipv4_addresses": [address], "hostname": name},
        "error": "",
    }


def volume(name: str = "v1", **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "capacity": "1Gi",
        "server": "192.0.2.1",
        "path": f"/nfs/{name}",
        "storage_class": "nfs",
        **more,
    }


def claim(name: str = "c1", **more: Any) -> dict[str, Any]:
    return {"name": name, "request": "1Gi", "storage_class": "nfs", **more}


def check(
    hosts: list[dict[str, Any]] | None = None, live: dict[str, Any] | None = None, **variables: Any
) -> dict[str, Any]:
    if hosts is None:
        hosts = [host("server1", "servers"), host("node1", "nodes")]
    cluster = {
        **NOTHING_LIVE,
        "variables": {"site_export_clients": ["192.0.2.0/24"], **variables},
        **(live or {}),
    }
    result = _inputs.check(copy.deepcopy(hosts), copy.deepcopy(cluster), SPECS)
    assert contradictions("storage_inputs", {**result, "failed": bool(result["problems"])}) == []
    return result


def problems(*arguments: Any, **variables: Any) -> list[str]:
    return [": ".join(one.values()) for one in check(*arguments, **variables)["problems"]]


def notes(*arguments: Any, **variables: Any) -> list[str]:
    return [": ".join(one.values()) for one in check(*arguments, **variables)["notes"]]
