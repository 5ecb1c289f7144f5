# SPDX-License-Identifier: GPL-3.0-or-later
"""Provisioners by manifests, charts and CSI: their rights, their values, their objects."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab import binaries

from .cluster import Cluster
from .cluster import claim as cluster_claim
from .storage_role import CLASS, DEPLOYMENTS, NAME, PROVISIONER, SERVER, Run, policy, provisioned, storage_class

# Many runs of playbooks: minutes.
pytestmark = pytest.mark.long


# Rights of the provisioner ---------------------------------------------------------------------------


class Provisioner:
    """The lab's provisioner with the service account that the role has made, and what the API refused it."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._cluster = cluster
        token = cluster.done("POST", "/api/v1/namespaces/role-test/serviceaccounts/role-test/token", {"spec": {}})
        (folder / "share").mkdir(exist_ok=True)
        self._kubeconfig = folder / "provisioner.kubeconfig"
        self._kubeconfig.write_text(yaml.safe_dump(cluster.kubeconfig_with({"token": token["status"]["token"]})))
        self._share = folder / "share"
        self._seen = self._lines()

    def __enter__(self) -> Provisioner:
        variables = {"PROVISIONER_NAME": NAME, "NFS_SERVER": SERVER, "NFS_PATH": "/nfs/dpv"}
        self._process = subprocess.Popen(
            [binaries.provisioner() / "provisioner", "-root", self._share],
            env={**os.environ, **variables, "KUBECONFIG": str(self._kubeconfig), "POD_NAMESPACE": "role-test"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.kill()
        self._process.wait()

    def _lines(self) -> int:
        return len(self._cluster.plane.audit_log.read_text().splitlines())

    def requests(self) -> list[dict[str, Any]]:
        """What it has asked for since it was made, as the audit log has it."""
        lines = self._cluster.plane.audit_log.read_text().splitlines()[self._seen :]
        events = [json.loads(line) for line in lines if "system:serviceaccount:role-test:role-test" in line]
        return [one for one in events if one["user"]["username"] == "system:serviceaccount:role-test:role-test"]

    def refused(self, resource: str = "") -> list[str]:
        return [
            f"{one['verb']} {one['objectRef']['resource']}"
            for one in self.requests()
            if (one.get("responseStatus") or {}).get("code") == 403 and resource in ("", one["objectRef"]["resource"])
        ]


def one_life(cluster: Cluster, number: int) -> None:
    """A claim that names a node, as the scheduler does for WaitForFirstConsumer, comes and goes."""
    name = f"life-{number}"
    body = cluster_claim(name, storage_class="role-test")
    body["metadata"]["annotations"] = {"volume.kubernetes.io/selected-node": "without-machine"}
    cluster.done("POST", "/api/v1/namespaces/default/persistentvolumeclaims", body)


LATE = {**CLASS, "volume_binding_mode": "WaitForFirstConsumer", "parameters": {"archiveOnDelete": "false"}}


def test_the_rights_of_the_provisioner_are_enough_and_each_rule_is_needed(
    node: Cluster, role: Callable[..., Run], tmp_path: Path
) -> None:
    assert role(provisioners=[PROVISIONER], classes=[LATE]).ok
    with Provisioner(node, tmp_path) as running:
        one_life(node, 0)
        node.wait_bound("life-0")
        volume_name = node.claim("life-0")["spec"]["volumeName"]
        node.delete_claim("life-0")
        node.wait(lambda: node.request("GET", f"/api/v1/persistentvolumes/{volume_name}")[0] == 404)
        assert running.requests()
        assert running.refused() == []
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    role_path = f"{rbac}/clusterroles/role-test-runner"
    rules = node.done("GET", role_path)["rules"]
    for number, left_out in enumerate(rules, 1):
        node.patch(role_path, {"rules": [one for one in rules if one != left_out]})
        with Provisioner(node, tmp_path) as running:
            one_life(node, number)
            node.wait(partial(running.refused, left_out["resources"][0]))
    node.patch(role_path, {"rules": rules})
    leader = f"{rbac}/namespaces/role-test/roles/leader-locking-role-test"
    node.patch(leader, {"rules": []})
    with Provisioner(node, tmp_path) as running:
        node.wait(partial(running.refused, "endpoints"))


# Charts and CSI --------------------------------------------------------------------------------------

CHART = {
    "Chart.yaml": "apiVersion: v2\nname: own-chart\nversion: 1.0.0\n",
    "values.yaml": "extra: nothing\n",
    "templates/all.yaml": """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .Release.Name }}
data:
  values: {{ toJson .Values | quote }}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .Release.Name }}
  labels: {helm.sh/chart: "{{ .Chart.Name }}-{{ .Chart.Version }}"}
spec:
  replicas: {{ .Values.replicaCount }}
  selector: {matchLabels: {own: "{{ .Release.Name }}"}}
  template:
    metadata: {labels: {own: "{{ .Release.Name }}"}}
    spec:
      containers:
        - name: provisioner
          image: "{{ .Values.image.repository }}:{{ .Values.image.tag }}"
          env:
            - {name: PROVISIONER_NAME, value: "{{ .Values.storageClass.provisionerName }}"}
            - {name: NFS_SERVER, value: "{{ .Values.nfs.server }}"}
            - {name: NFS_PATH, value: "{{ .Values.nfs.path }}"}
""",
}


def write_chart(folder: Path, version: str) -> Path:
    """A chart of the tests' own; the upstream ones are not looked at."""
    for name, text in CHART.items():
        file = folder / "own-chart" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.replace("1.0.0", version))
    return folder / "own-chart"


def test_a_chart_is_installed_upgraded_and_removed(
    node: Cluster, role: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proves values and life cycle, with the real helm; not the upstream chart."""
    monkeypatch.setenv("PATH", f"{binaries.helm()}:{os.environ['PATH']}")
    chart = write_chart(tmp_path, "1.0.0")
    one = {**PROVISIONER, "method": "helm", "chart": str(chart), "values": {"extra": "mine", "resources": {}}}
    registry = "registry.example.org/mirror"
    given = {"classes": [CLASS], "image_registry": registry}
    first = role(provisioners=[one], **given)
    assert first.ok, first.words
    deployment = node.done("GET", f"{DEPLOYMENTS}/role-test")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == f"{registry}/sig-storage/nfs-subdir-external-provisioner:v4.0.2"
    assert [each["value"] for each in container["env"]] == [NAME, SERVER, "/nfs/dpv"]
    values = json.loads(node.done("GET", "/api/v1/namespaces/role-test/configmaps/role-test")["data"]["values"])
    assert values["extra"] == "mine"
    assert values["storageClass"]["create"] is False
    second = role(provisioners=[one], **given)
    assert second.changes_nothing, second.words
    for name in ("pvc-1", "pvc-2"):
        provisioned(node, name)
    # The next version, as an archive.
    write_chart(tmp_path, "1.1.0")
    subprocess.run([binaries.helm() / "helm", "package", chart, "-d", tmp_path], check=True, capture_output=True)
    archive = {**one, "chart": str(tmp_path / "own-chart-1.1.0.tgz"), "path": "/nfs/new"}
    upgraded = role(provisioners=[archive], **given)
    assert upgraded.ok, upgraded.words
    assert "pvc-1, pvc-2: set to Retain" in upgraded.words
    assert {policy(node, name) for name in ("pvc-1", "pvc-2")} == {("Delete", None)}
    labels = node.done("GET", f"{DEPLOYMENTS}/role-test")["metadata"]["labels"]
    assert labels["helm.sh/chart"] == "own-chart-1.1.0"
    variables = {"k8s_storage_provisioners": [archive], "k8s_storage_classes": [CLASS], "teardown_confirm": True}
    gone = node.play("clusterkit.storage.teardown", **variables)
    assert gone.returncode == 0, gone.stdout
    assert node.request("GET", f"{DEPLOYMENTS}/role-test")[0] == 404
    assert {policy(node, name) for name in ("pvc-1", "pvc-2")} == {("Retain", "Delete")}


SNAPSHOT_CLASSES = "/apis/snapshot.storage.k8s.io/v1/volumesnapshotclasses"


def define_snapshot_classes(cluster: Cluster) -> None:
    names = {"plural": "volumesnapshotclasses", "singular": "volumesnapshotclass", "kind": "VolumeSnapshotClass"}
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    body = {
        "metadata": {
            "name": "volumesnapshotclasses.snapshot.storage.k8s.io",
            "annotations": {"api-approved.kubernetes.io": "unapproved, a test"},
        },
        "spec": {"group": "snapshot.storage.k8s.io", "scope": "Cluster", "names": names, "versions": [version]},
    }
    status, answer = cluster.request("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", body)
    assert status in (201, 409), answer
    cluster.wait(lambda: cluster.request("GET", SNAPSHOT_CLASSES)[0] == 200)


def test_objects_of_the_csi_driver_are_accepted_and_our_modules_work_on_them(
    node: Cluster, role: Callable[..., Run]
) -> None:
    define_snapshot_classes(node)
    driver: dict[str, Any] = {
        "engine": "csi",
        "method": "installed",
        "server": SERVER,
        "path": "/nfs/csi",
        "snapshot_classes": [{"name": "role-test", "parameters": {"mountOptions": "nfsvers=4.1"}}],
    }
    attributes = {"server": SERVER, "share": "/nfs/csi", "subDir": "static"}
    wanted: dict[str, Any] = {
        "provisioners": [driver],
        "classes": [{"name": "role-test", "provisioner": "nfs.csi.k8s.io"}],
        "volumes": [
            {
                "name": "csi-static",
                "capacity": "1Gi",
                "storage_class": "csi-static",
                "reclaim_policy": "Delete",
                "csi": {"handle": f"{SERVER}#nfs/csi#static##", "attributes": attributes},
            }
        ],
        "claims": [{"name": "csi-static", "storage_class": "csi-static", "request": "1Gi"}],
    }
    first = role(**wanted)
    assert first.ok, first.words
    second = role(**wanted)
    assert second.changes_nothing, second.words
    assert storage_class(node, "role-test")["parameters"] == {"server": SERVER, "share": "/nfs/csi"}
    assert node.done("GET", f"{SNAPSHOT_CLASSES}/role-test")["deletionPolicy"] == "Retain"
    node.wait_bound("csi-static")
    (record,) = node.direct("pv_info", selection={"drivers": ["nfs.csi.k8s.io"]})["volumes"]
    assert (record["server"], record["path"], record["phase"]) == (SERVER, "/nfs/csi/static", "Bound")
    assert node.direct("pv_reclaim", volumes=["csi-static"], policy="Retain")["summary"]["changed"] == 1
    moved = {**wanted["volumes"][0], "csi": {"handle": "other", "attributes": attributes}}
    refused = role(**{**wanted, "volumes": [moved]})
    assert f'has "{SERVER}#nfs/csi#static##", here "other"' in refused.words
    node.done("DELETE", f"{SNAPSHOT_CLASSES}/role-test")
