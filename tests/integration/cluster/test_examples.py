# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifests of docs/examples.md: a real API server takes each of them, and they fit each other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from .cluster import ROOT, Cluster

TEXT = (ROOT / "docs/examples.md").read_text()
OBJECTS: list[dict[str, Any]] = [
    item for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL) for item in yaml.safe_load_all(block)
]
PATHS = {
    "Pod": "/api/v1/namespaces/test/pods",
    "PersistentVolumeClaim": "/api/v1/namespaces/test/persistentvolumeclaims",
    "Service": "/api/v1/namespaces/test/services",
    "Deployment": "/apis/apps/v1/namespaces/test/deployments",
    "Ingress": "/apis/networking.k8s.io/v1/namespaces/test/ingresses",
}
HOST_PATH_TYPES = {"", "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice"}


def the(kind: str, name: str) -> dict[str, Any]:
    return next(one for one in OBJECTS if (one["kind"], one["metadata"]["name"]) == (kind, name))


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[Cluster]:
    cluster.namespace("test")
    yield cluster
    cluster.done("DELETE", "/api/v1/namespaces/test")


def test_the_api_takes_every_example_and_keeps_all_of_it(namespace: Cluster) -> None:
    assert {one["kind"] for one in OBJECTS} == {*PATHS, "Namespace"}
    for one in OBJECTS:
        if one["kind"] == "Namespace":
            continue
        # Strict: a field that the API does not know is an error.
        made = namespace.done("POST", f"{PATHS[one['kind']]}?fieldValidation=Strict", one)
        assert made["metadata"]["name"] == one["metadata"]["name"]
    service = namespace.done("GET", f"{PATHS['Service']}/web")
    assert service["spec"]["ports"][0]["nodePort"] == 30080


def test_the_parts_of_the_web_application_fit_each_other() -> None:
    template = the("Deployment", "web")["spec"]["template"]
    service, ingress = the("Service", "web"), the("Ingress", "web")
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    backend = ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert backend["name"] == service["metadata"]["name"]
    assert backend["port"]["name"] in {port["name"] for port in service["spec"]["ports"]}
    claim = template["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"]
    assert (
        the("PersistentVolumeClaim", claim)["metadata"]["namespace"]
        == the("Deployment", "web")["metadata"]["namespace"]
    )


def test_every_type_of_host_path_has_its_example() -> None:
    volumes = the("Pod", "host-path")["spec"]["volumes"]
    assert {one["hostPath"].get("type", "") for one in volumes} == HOST_PATH_TYPES
