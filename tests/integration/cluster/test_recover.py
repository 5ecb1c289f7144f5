# SPDX-License-Identifier: GPL-3.0-or-later
"""Recovering pods against a real API server. There is no kubelet: what is deleted stays Terminating."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from .cluster import Cluster

RECOVER = "clusterkit.storage.recover"
PODS = "/api/v1/namespaces/default/pods"


@pytest.fixture
def outage(empty: Cluster) -> Iterator[Cluster]:
    """Two nodes, and on each a pod with an NFS volume that was deleted, its grace period over."""
    for name in ("here", "silent"):
        body = {"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}
        assert empty.request("POST", "/api/v1/nodes", body)[0] in (201, 409)
        empty.make_bound(f"data-{name}")
        make_pod(empty, f"stuck-{name}", name, claim=f"data-{name}")
        empty.done("DELETE", f"{PODS}/stuck-{name}?gracePeriodSeconds=1")
    time.sleep(2)
    yield empty
    for name in ("here", "silent"):
        empty.done("DELETE", f"/api/v1/nodes/{name}")


def make_pod(cluster: Cluster, name: str, node: str, claim: str = "", **metadata: Any) -> dict[str, Any]:
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}] if claim else []
    container = {"name": "c", "image": "docker.io/library/busybox:1.36"}
    spec = {"nodeName": node, "containers": [container], "volumes": volumes, "automountServiceAccountToken": False}
    made: dict[str, Any] = cluster.done("POST", PODS, {"metadata": {"name": name, **metadata}, "spec": spec})
    return made


def there(cluster: Cluster) -> set[str]:
    return {one["metadata"]["name"] for one in cluster.done("GET", PODS)["items"]}


def step(pod: dict[str, Any], action: str, **precondition: str) -> dict[str, Any]:
    metadata = pod["metadata"]
    wanted = {"uid": metadata["uid"], "resource_version": metadata["resourceVersion"], **precondition}
    return {"id": "1", "action": action, "namespace": "default", "name": metadata["name"], "precondition": wanted}


def test_pods_are_listed_with_their_nfs_volumes(outage: Cluster, tmp_path: Path) -> None:
    # An owner that does not exist would have its pod deleted by the garbage collector.
    keeper = outage.done("POST", "/api/v1/namespaces/default/configmaps", {"metadata": {"generateName": "keeper-"}})
    owner, uid = keeper["metadata"]["name"], keeper["metadata"]["uid"]
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": uid, "controller": True}
    make_pod(outage, "running", "here", ownerReferences=[reference])
    found = outage.module("pod_info")
    pods = {one["name"]: one for one in found["pods"]}
    assert set(pods) == {"running", "stuck-here", "stuck-silent"}
    assert pods["stuck-here"]["volumes"] == [{"name": "data", "kind": "nfs", "source": "192.0.2.10:/nfs/k8s/data-here"}]
    assert pods["stuck-here"]["deleting"]
    assert pods["running"]["owner"] == f"ConfigMap {owner}"
    assert {one["name"]: one["ready"] for one in found["nodes"]} == {"here": False, "silent": False}
    assert found["counts"] == {"pods": 3, "nfs": 2, "deleting": 2}
    kept = outage.module("pod_info", dest=str(tmp_path / "pods.jsonl"))
    assert kept["pods"] == []
    assert len((tmp_path / "pods.jsonl").read_text().splitlines()) == 1 + 2 + 3


def test_only_the_very_pod_of_a_step_is_deleted(outage: Cluster) -> None:
    first = make_pod(outage, "first", "here")
    outage.done("DELETE", f"{PODS}/first?gracePeriodSeconds=0")
    second = make_pod(outage, "first", "here")
    third = make_pod(outage, "third", "here")
    outage.patch(f"{PODS}/third", {"metadata": {"labels": {"touched": "yes"}}})
    steps = [step(first, "restart"), step(third, "restart"), step(first, "restart") | {"name": "gone"}]
    found = outage.direct("pod_recover", steps=steps)
    assert found["failed"]
    assert [one["state"] for one in found["steps"]] == ["stale", "stale", "gone"]
    assert {"first", "third"} <= there(outage)
    checked = outage.module("pod_recover", "--check", steps=[step(second, "restart", resource_version="")])
    assert (checked["changed"], checked["steps"][0]["state"]) == (True, "done")
    assert not outage.done("GET", f"{PODS}/first")["metadata"].get("deletionTimestamp")
    done = outage.module("pod_recover", steps=[step(second, "restart", resource_version="")])
    assert done["changed"]
    assert outage.done("GET", f"{PODS}/first")["metadata"]["deletionTimestamp"], "its own grace period, not by force"


def test_nothing_is_deleted_by_force_without_the_word_of_its_node(outage: Cluster) -> None:
    pod = outage.done("GET", f"{PODS}/stuck-here")
    uid = pod["metadata"]["uid"]
    wanted = step(pod, "force_delete")
    for left, words in (
        ([], "its node has not confirmed"),
        ([{"uid": uid, "mounts": ["/m"], "processes": []}], "it is still mounted on its node: /m"),
        ([{"uid": uid, "mounts": [], "processes": ["7 (sh)"]}], "processes of it are left on its node: 7 (sh)"),
    ):
        found = outage.module("pod_recover", steps=[wanted], left=left)
        assert found["steps"][0]["state"] == "refused"
        assert words in found["steps"][0]["reason"]
    assert "stuck-here" in there(outage)
    waited = outage.module(
        "pod_recover", pods=[{"namespace": "default", "name": "stuck-here", "uid": uid}], wait_timeout=2
    )
    assert waited["pods"] == [{"pod": "default/stuck-here", "uid": uid, "removed": False, "seconds": None}]
    found = outage.module("pod_recover", steps=[wanted], left=[{"uid": uid, "mounts": [], "processes": []}])
    assert found["steps"][0]["state"] == "done"
    gone = outage.module("pod_recover", pods=[{"namespace": "default", "name": "stuck-here", "uid": uid}])
    assert gone["pods"][0]["removed"]


def inventory(folder: Path) -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    hosts = {
        "here": {"ansible_connection": "local", "ansible_become": os.geteuid() != 0},
        "silent": {"ansible_host": "127.0.0.1", "ansible_port": port},
    }
    (folder / "hosts.yml").write_text(yaml.safe_dump({"nfs_clients": {"hosts": hosts}}))
    return str(folder / "hosts.yml")


def test_the_playbook_names_the_silent_node_and_deletes_by_force_only_elsewhere(
    outage: Cluster, tmp_path: Path
) -> None:
    hosts, plan = inventory(tmp_path), tmp_path / "plan.json"
    options = ("-i", hosts)
    wanted = {"recover_plan_dest": str(plan), "recover_wait": 2}
    shown = outage.play(RECOVER, *options, **wanted)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "silent: does not answer" in shown.stdout
    assert "left alone: default/stuck-silent" in shown.stdout
    assert json.loads(plan.read_text())["steps"] == []
    allowed = {**wanted, "recover_allow_force_delete": True}
    tried = outage.play(RECOVER, "--check", *options, **allowed, recover_confirm=True)
    assert tried.returncode == 0, tried.stdout + tried.stderr
    assert outage.play(RECOVER, *options, **allowed).returncode == 0
    assert there(outage) == {"stuck-here", "stuck-silent"}
    done = outage.play(RECOVER, *options, recover_plan_file=str(plan), recover_wait=2)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "default/stuck-here: Terminating since" in done.stdout
    assert "deleted by force" in done.stdout
    assert there(outage) == {"stuck-silent"}
    results = [json.loads(line) for line in Path(f"{plan}.result.jsonl").read_text().splitlines()]
    assert {(one["item"], one["state"]) for one in results} == {
        ("default/stuck-here", "done"),
        ("default/stuck-here", "removed"),
    }
    limited = outage.play(RECOVER, *options, "--limit", "here", **wanted)
    assert limited.returncode
    assert "write --limit 'HOSTS:localhost'" in limited.stdout
