# SPDX-License-Identifier: GPL-3.0-or-later
"""storage_diagnose in one process for all its tests, the one answer that is wanted, and objects to be diagnosed."""

from __future__ import annotations

import functools
import json
import subprocess
import time
from typing import Any

from tests.documentation import contradictions

from .cluster import BIN, PROVISIONER, ROOT, Cluster, environment

APPS = "/apis/apps/v1/namespaces"
CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
PODS = "/api/v1/namespaces/default/pods"
STOPPED = "example.com/stopped"

# The module is imported once and forked for each call: these tests call it often, and importing is most of the time.
RUN = """
import os, sys
import ansible_collections
from ansible.module_utils import basic
from ansible_collections.clusterkit.storage.plugins.modules import storage_diagnose
basic._ANSIBLE_PROFILE = "legacy"
for line in sys.stdin:
    if not os.fork():
        basic._ANSIBLE_ARGS = line.encode()
        storage_diagnose.main()
    os.wait()
"""


@functools.cache
def runner() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(BIN / "python"), "-c", RUN],
        env=environment() | {"PYTHONPATH": str(ROOT / ".work/collections")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def run(cluster: Cluster, **arguments: Any) -> dict[str, Any]:
    """What the module returns."""
    process = runner()
    assert process.stdin
    assert process.stdout
    given = {"kubeconfig": cluster.kubeconfig, **arguments, "_ansible_check_mode": False}
    process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": given}) + "\n")
    process.stdin.flush()
    # An empty line comes first.
    result: dict[str, Any] = json.loads(next(line for line in process.stdout if line.strip()))
    return result


def diagnose(cluster: Cluster, **arguments: Any) -> list[dict[str, Any]]:
    """Findings, as documented and short enough."""
    result = run(cluster, **arguments)
    assert not result.get("failed"), result
    assert contradictions("storage_diagnose", result) == []
    for one in result["findings"]:
        assert len(one["sentence"].split()) <= 30, one
        assert (one["certainty"] == "probable") is bool(one["check"])
    found: list[dict[str, Any]] = result["findings"]
    return found


def answer(cluster: Cluster, name: str, cause: str, *words: str, **arguments: Any) -> dict[str, Any]:
    """Wait until this is the one finding about the object of this name: controllers need a moment. Compare it."""
    found: list[dict[str, Any]] = []
    deadline = time.monotonic() + 60
    while [one["cause"] for one in found] != [cause] and time.monotonic() < deadline:
        found = [one for one in diagnose(cluster, **arguments) if one["object"]["name"] == name]
    assert [one["cause"] for one in found] == [cause], found
    for one in words:
        assert one in found[0]["sentence"], found[0]
    return dict(found[0])


def make_class(cluster: Cluster, name: str, **more: Any) -> None:
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"} if more.pop("default", False) else {}
    body = {"metadata": {"name": name, "annotations": annotations}, "provisioner": PROVISIONER, **more}
    cluster.done("POST", CLASSES, body)


def make_claim(cluster: Cluster, name: str, namespace: str = "default", **spec: Any) -> None:
    body = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}, **spec}
    cluster.done(
        "POST", f"/api/v1/namespaces/{namespace}/persistentvolumeclaims", {"metadata": {"name": name}, "spec": body}
    )


def make_pod(cluster: Cluster, name: str, claim: str = "", namespace: str = "default", **spec: Any) -> None:
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}] if claim else []
    body = {"containers": [{"name": "c", "image": "busybox"}], "volumes": volumes, **spec}
    cluster.done("POST", f"/api/v1/namespaces/{namespace}/pods", {"metadata": {"name": name}, "spec": body})


def make_node(cluster: Cluster, name: str) -> None:
    """One that nobody runs: the scheduler looks no further when a cluster has none."""
    cluster.done("POST", "/api/v1/nodes", {"metadata": {"name": name}})


def make_namespace(cluster: Cluster, name: str) -> None:
    cluster.namespace(name)
    cluster.wait(lambda: cluster.request("GET", f"/api/v1/namespaces/{name}/serviceaccounts/default")[0] == 200)


def deployment(
    name: str, labels: dict[str, str], selector: dict[str, str] | None = None, **more: Any
) -> dict[str, Any]:
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "c", "image": "example.com/app:1", **more.pop("container", {})}], **more},
    }
    spec = {"replicas": 1, "selector": {"matchLabels": selector or labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def provisioner_deployment(name: str, provisioner: str, **more: Any) -> dict[str, Any]:
    environment = [{"name": "PROVISIONER_NAME", "value": provisioner}]
    container = {"env": environment, **more.pop("container", {})}
    return deployment(name, {"app": name}, container=container, **more)


def sweep(cluster: Cluster) -> None:
    """Remove what the tests of storage_diagnose make besides claims, pods and volumes."""
    for item in cluster.done("GET", CLASSES)["items"]:
        cluster.done("DELETE", f"{CLASSES}/{item['metadata']['name']}")
    for item in cluster.done("GET", "/api/v1/pods")["items"]:
        path = f"/api/v1/namespaces/{item['metadata']['namespace']}/pods/{item['metadata']['name']}"
        assert cluster.request("DELETE", f"{path}?gracePeriodSeconds=0")[0] in (200, 404)
    for kind in ("deployments", "replicasets"):
        for item in cluster.done("GET", f"/apis/apps/v1/{kind}")["items"]:
            path = f"{APPS}/{item['metadata']['namespace']}/{kind}/{item['metadata']['name']}"
            assert cluster.request("DELETE", path)[0] in (200, 202, 404)
    cluster.done("DELETE", "/api/v1/nodes")
    cluster.request("DELETE", f"/api/v1/namespaces/default/endpoints/{PROVISIONER.replace('/', '-')}")
    for item in cluster.done("GET", "/api/v1/services")["items"]:
        if item["metadata"]["name"] != "kubernetes":
            path = f"/api/v1/namespaces/{item['metadata']['namespace']}/services/{item['metadata']['name']}"
            cluster.done("DELETE", path)
