# SPDX-License-Identifier: GPL-3.0-or-later
"""storage_diagnose where everything is real but the nodes: each fault is brought about, and the answer is compared."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import time
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import binaries
from tests.documentation import contradictions

from .cluster import BIN, PROVISIONER, ROOT, Cluster, environment, volume

# Minutes of waiting for controllers.
pytestmark = pytest.mark.long

APPS = "/apis/apps/v1/namespaces"
CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
NETWORKING = "/apis/networking.k8s.io/v1/namespaces"
PODS = "/api/v1/namespaces/default/pods"
STOPPED = "example.com/stopped"


@pytest.fixture
def clean(empty: Cluster) -> Iterator[Cluster]:
    """Without what these tests make besides claims, pods and volumes."""

    def sweep() -> None:
        for item in empty.done("GET", CLASSES)["items"]:
            empty.done("DELETE", f"{CLASSES}/{item['metadata']['name']}")
        for item in empty.done("GET", "/api/v1/pods")["items"]:
            path = f"/api/v1/namespaces/{item['metadata']['namespace']}/pods/{item['metadata']['name']}"
            assert empty.request("DELETE", f"{path}?gracePeriodSeconds=0")[0] in (200, 404)
        for kind in ("deployments", "replicasets"):
            for item in empty.done("GET", f"/apis/apps/v1/{kind}")["items"]:
                path = f"{APPS}/{item['metadata']['namespace']}/{kind}/{item['metadata']['name']}"
                assert empty.request("DELETE", path)[0] in (200, 202, 404)
        empty.done("DELETE", "/api/v1/nodes")
        empty.request("DELETE", f"/api/v1/namespaces/default/endpoints/{PROVISIONER.replace('/', '-')}")
        for item in empty.done("GET", "/api/v1/services")["items"]:
            if item["metadata"]["name"] != "kubernetes":
                path = f"/api/v1/namespaces/{item['metadata']['namespace']}/services/{item['metadata']['name']}"
                empty.done("DELETE", path)

    sweep()
    yield empty
    sweep()


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


@pytest.fixture(scope="module", autouse=True)
def one_runner() -> Iterator[None]:
    yield
    runner().communicate()
    runner.cache_clear()


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


def is_available(cluster: Cluster, volume: str) -> bool:
    return cluster.phase(volume) == "Available"


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


# Claims and volumes made by hand --------------------------------------------------------------------------


def test_classes_that_are_missing(clean: Cluster) -> None:
    clean.make_volume("other", storage_class="nfs")
    clean.wait(lambda: clean.phase("other") == "Available")
    make_claim(clean, "none", storageClassName="")
    make_claim(clean, "unset")
    make_claim(clean, "typo", storageClassName="nsf-fast")
    make_class(clean, "nfs-fast")
    answer(clean, "none", "no-class", 'storageClassName ""')
    found = answer(clean, "unset", "no-default-class", "names no class")
    assert "other (class nfs) would fit" in found["evidence"]
    answer(clean, "typo", "class-unknown", "nsf-fast", "(nfs-fast?)")
    # With a default class the controller gives it to the claim, which then waits for its provisioner.
    make_class(clean, "usual", default=True)
    clean.wait(lambda: clean.claim("unset")["spec"].get("storageClassName") == "usual", 90)
    answer(clean, "unset", "provisioner-not-running", PROVISIONER)


def test_volumes_that_do_not_fit_say_by_what(clean: Cluster) -> None:
    clean.make_volume("small", storage_class="nfs", labels={"pv": "small"})
    clean.wait(lambda: clean.phase("small") == "Available")
    make_claim(clean, "large", storageClassName="nfs", resources={"requests": {"storage": "5Gi"}})
    make_claim(clean, "modes", storageClassName="nfs", accessModes=["ReadWriteOnce"])
    make_claim(clean, "labels", storageClassName="nfs", selector={"matchLabels": {"pv": "other"}})
    make_claim(clean, "classes", storageClassName="else", selector={"matchLabels": {"pv": "small"}})
    make_claim(clean, "blocks", storageClassName="nfs", volumeMode="Block")
    make_claim(
        clean, "both", storageClassName="nfs", accessModes=["ReadOnlyMany"], resources={"requests": {"storage": "9Gi"}}
    )
    found = answer(clean, "large", "volume-mismatch-size", "asks for 5Gi", "small has 1Gi")
    assert found["evidence"] == ["size: the claim asks for 5Gi, small has 1Gi"]
    answer(clean, "modes", "volume-mismatch-access-modes", "ReadWriteOnce")
    answer(clean, "labels", "volume-mismatch-selector", "pv=other")
    answer(clean, "classes", "volume-mismatch-class", "class else", "class nfs")
    answer(clean, "blocks", "volume-mismatch-volume-mode", "volumeMode")
    answer(clean, "both", "volume-mismatch", "size, access-modes")
    # What the answers say helps.
    clean.patch("/api/v1/persistentvolumes/small", {"metadata": {"labels": {"pv": "other"}}})
    clean.wait_bound("labels")
    assert not [one for one in diagnose(clean) if one["object"]["name"] == "labels"]
    answer(clean, "large", "no-volume-left", "in use")


def test_volumes_of_somebody_else(clean: Cluster) -> None:
    clean.make_released(["old"], storage_class="nfs")
    make_claim(clean, "heir", storageClassName="nfs")
    found = answer(clean, "heir", "volume-released", "volume old, which is Released")
    assert "old is Released, last claimed by default/claim-old" in found["evidence"]
    # The playbook that it names helps.
    done = clean.direct("pv_reclaim", volumes=["old"], release="open", wait=True)
    assert done["summary"]["changed"] == 1
    clean.wait_bound("heir")
    body = volume("kept", storage_class="kept")
    body["spec"]["claimRef"] = {"kind": "PersistentVolumeClaim", "namespace": "default", "name": "owner"}
    clean.done("POST", "/api/v1/persistentvolumes", body)
    clean.wait(lambda: clean.phase("kept") == "Available")
    make_claim(clean, "rival", storageClassName="kept")
    make_claim(clean, "by-name", storageClassName="kept", volumeName="kept")
    answer(clean, "rival", "volume-reserved", "reserved for default/owner")
    answer(clean, "by-name", "volume-reserved", "reserved for default/owner")
    make_claim(clean, "owner", storageClassName="kept")
    clean.wait_bound("owner")
    answer(clean, "by-name", "volume-taken", "bound to default/owner")
    answer(clean, "rival", "no-volume-left")


def test_a_volume_that_is_named(clean: Cluster) -> None:
    make_claim(clean, "nowhere", storageClassName="nfs", volumeName="typo")
    answer(clean, "nowhere", "volume-missing", "typo", "does not exist")
    clean.make_volume("small", storage_class="nfs")
    make_claim(clean, "large", storageClassName="nfs", volumeName="small", resources={"requests": {"storage": "2Gi"}})
    make_claim(clean, "other-class", storageClassName="", volumeName="small")
    clean.wait(lambda: clean.phase("small") == "Available")
    answer(clean, "large", "volume-mismatch-size", "asks for 2Gi")
    answer(clean, "other-class", "volume-mismatch-class", "no class", "class nfs")
    clean.make_released(["gone"], storage_class="nfs")
    make_claim(clean, "late", storageClassName="nfs", volumeName="gone")
    answer(clean, "late", "volume-released", "gone, which is Released")


def test_a_reserved_volume_that_is_too_small(clean: Cluster) -> None:
    body = volume("mine", storage_class="nfs")
    body["spec"]["claimRef"] = {"kind": "PersistentVolumeClaim", "namespace": "default", "name": "large"}
    clean.done("POST", "/api/v1/persistentvolumes", body)
    make_claim(clean, "large", storageClassName="nfs", resources={"requests": {"storage": "2Gi"}})
    answer(clean, "large", "volume-mismatch-size", "volume mine has 1Gi")


def test_a_claim_that_waits_for_its_pod_is_no_fault_unless_somebody_asks(clean: Cluster) -> None:
    make_class(clean, "late", volumeBindingMode="WaitForFirstConsumer")
    make_claim(clean, "waits", storageClassName="late")
    assert diagnose(clean) == []
    answer(clean, "waits", "waits-for-pod", "start the pod", namespace="default", claim="waits")


def test_capacities_that_disagree(clean: Cluster) -> None:
    make_class(clean, "grows", allowVolumeExpansion=True)
    clean.make_bound("patched", storage_class="nfs")
    clean.make_bound("asked", storage_class="grows")
    assert diagnose(clean) == []
    clean.patch("/api/v1/persistentvolumes/patched", {"spec": {"capacity": {"storage": "30Gi"}}})
    wanted = {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}
    clean.patch("/api/v1/namespaces/default/persistentvolumeclaims/asked", wanted)
    answer(clean, "patched", "capacity-disagrees", "says 1Gi", "30Gi")
    answer(clean, "asked", "capacity-disagrees", "asks for 2Gi but has 1Gi")
    claims = [
        {"namespace": "default", "name": "asked", "size": "2Gi"},
        {"namespace": "default", "name": "patched", "size": "30Gi"},
    ]
    assert not clean.direct("pvc_expand", claims=claims).get("failed")
    assert diagnose(clean) == []


def test_a_claim_that_has_lost_its_volume(clean: Cluster) -> None:
    clean.make_bound("lost", storage_class="nfs")
    clean.done("DELETE", "/api/v1/persistentvolumes/lost")
    clean.patch("/api/v1/persistentvolumes/lost", {"metadata": {"finalizers": None}})
    clean.wait(lambda: clean.claim("lost")["status"]["phase"] == "Lost")
    found = answer(clean, "lost", "claim-lost", "whose object is gone")
    assert any("lost its PersistentVolume" in one for one in found["evidence"])


# Provisioners ---------------------------------------------------------------------------------------------


def provisioner_deployment(name: str, provisioner: str, **more: Any) -> dict[str, Any]:
    environment = [{"name": "PROVISIONER_NAME", "value": provisioner}]
    container = {"env": environment, **more.pop("container", {})}
    return deployment(name, {"app": name}, container=container, **more)


def test_provisioners_that_do_not_run(clean: Cluster) -> None:
    make_class(clean, "managed", provisioner=STOPPED)
    make_claim(clean, "waits", storageClassName="managed")
    found = answer(clean, "waits", "provisioner-not-running", STOPPED, "no Deployment runs")
    assert found["certainty"] == "certain"
    # Scaled to nothing, then with a pod that no node takes.
    clean.service_account("nfs-stopped", PROVISIONER_RULES)
    body = provisioner_deployment("stopped", STOPPED, serviceAccountName="nfs-stopped", nodeSelector={"disk": "big"})
    body["spec"]["replicas"] = 0
    clean.done("POST", f"{APPS}/default/deployments", body)
    answer(clean, "waits", "provisioner-not-running", "default/stopped has no ready pod", "scale it up")
    clean.patch(f"{APPS}/default/deployments/stopped", {"spec": {"replicas": 1}})
    clean.wait(lambda: clean.done("GET", PODS)["items"])
    answer(clean, "waits", "provisioner-not-running", "see why its pod is not ready")
    # The pod has its own answer.
    pod = clean.done("GET", PODS)["items"][0]["metadata"]["name"]
    answer(clean, pod, "no-node-matches", "disk=big", namespace="default", pod=pod)


PROVISIONER_RULES = [
    {"apiGroups": [""], "resources": ["persistentvolumes"], "verbs": ["get", "list", "watch", "create", "delete"]},
    {"apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": ["get", "list", "watch", "update"]},
    {"apiGroups": ["storage.k8s.io"], "resources": ["storageclasses"], "verbs": ["get", "list", "watch"]},
    {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "update", "patch"]},
    {"apiGroups": [""], "resources": ["endpoints"], "verbs": ["get", "list", "watch", "create", "update", "patch"]},
]


def test_a_provisioner_without_rights(clean: Cluster) -> None:
    """The API server itself is asked what the service account may do."""
    make_class(clean, "managed")
    make_claim(clean, "waits", storageClassName="managed")
    rules = [{**one, "verbs": [verb for verb in one["verbs"] if verb != "create"]} for one in PROVISIONER_RULES]
    clean.service_account("poor", rules)
    body = provisioner_deployment("poor", PROVISIONER, serviceAccountName="poor")
    clean.done("POST", f"{APPS}/default/deployments", body)
    found = answer(clean, "waits", "provisioner-without-rights", "may not create persistentvolumes", "RBAC")
    assert found["certainty"] == "certain"
    assert found["evidence"] == ["not allowed: create persistentvolumes"]
    clean.service_account("poor", PROVISIONER_RULES)
    answer(clean, "waits", "provisioner-not-running")


def test_the_image_of_the_old_provisioner(clean: Cluster) -> None:
    make_class(clean, "managed")
    make_claim(clean, "waits", storageClassName="managed")
    image = {"image": "quay.io/external_storage/nfs-client-provisioner:latest"}
    body = provisioner_deployment("old", PROVISIONER, container=image)
    clean.done("POST", f"{APPS}/default/deployments", body)
    found = answer(clean, "waits", "provisioner-selflink", "no feature gate restores it")
    assert found["certainty"] == "probable"
    assert "selfLink was empty" in found["check"]


@pytest.fixture
def provisioner(clean: Cluster, tmp_path: Path) -> Iterator[Callable[..., None]]:
    """The lab's provisioner at work, with a local folder as its share."""
    (tmp_path / "share").mkdir()
    runs: list[subprocess.Popen[bytes]] = []

    def start(kubeconfig: str = "") -> None:
        variables = {"PROVISIONER_NAME": PROVISIONER, "NFS_SERVER": "192.0.2.10", "NFS_PATH": "/nfs/k8s/dpv"}
        with (tmp_path / "provisioner.log").open("ab") as log:
            command: list[str | Path] = [binaries.provisioner() / "provisioner", "-root", tmp_path / "share"]
            own = {**os.environ, **variables, "KUBECONFIG": kubeconfig or clean.kubeconfig}
            runs.append(subprocess.Popen(command, env=own, stdout=log, stderr=log))

    yield start
    for run in runs:
        run.kill()
        run.wait()


def test_a_provisioner_at_work_says_itself_what_is_wrong(clean: Cluster, provisioner: Callable[..., None]) -> None:
    make_class(clean, "managed", reclaimPolicy="Delete")
    provisioner()
    make_claim(clean, "good", storageClassName="managed")
    clean.wait_bound("good")
    # It takes no selectors, as the real one.
    make_claim(clean, "picky", storageClassName="managed", selector={"matchLabels": {"pv": "x"}})
    found = answer(clean, "picky", "provisioning-failed", PROVISIONER)
    assert any("elector" in one for one in found["evidence"]), found
    assert [one["object"]["name"] for one in diagnose(clean)] == ["picky"]
    # It cannot delete a volume whose class is gone, and says so.
    clean.delete_claim("picky")
    name = clean.claim("good")["spec"]["volumeName"]
    clean.done("DELETE", f"{CLASSES}/managed")
    clean.delete_claim("good")
    found = answer(clean, name, "volume-delete-failed", "cannot delete it")
    assert any("managed" in one for one in found["evidence"]), found


# Volumes --------------------------------------------------------------------------------------------------


def test_volumes_that_failed(clean: Cluster) -> None:
    clean.make_released(["by-hand"], policy="Delete")
    clean.wait(lambda: clean.phase("by-hand") == "Failed")
    found = answer(clean, "by-hand", "volume-failed-no-deleter", "made by hand", "Retain")
    assert any("status.message" in one for one in found["evidence"])


def test_released_with_policy_delete_and_nobody_there(clean: Cluster) -> None:
    clean.make_released(["lurking"], policy="Delete", provisioner=STOPPED)
    answer(clean, "lurking", "released-delete-without-provisioner", STOPPED, "starting it destroys the data")
    # What it advises is all it takes.
    clean.direct("pv_reclaim", volumes=["lurking"], policy="Retain")
    assert diagnose(clean) == []


def test_volumes_that_are_being_deleted(clean: Cluster) -> None:
    clean.make_bound("used", storage_class="nfs")
    clean.done("DELETE", "/api/v1/persistentvolumes/used")
    found = answer(clean, "used", "volume-terminating-in-use", "default/used", "its data stays")
    assert "kubernetes.io/pv-protection" in found["evidence"][0]
    csi = "external-provisioner.volume.kubernetes.io/finalizer"
    source = {"csi": {"driver": "csi.example.com", "volumeHandle": "x"}}
    for name, finalizer, where in (("held", "example.com/backup", None), ("csi", csi, source)):
        body = volume(name, source=where)
        body["metadata"]["finalizers"] = [finalizer]
        clean.done("POST", "/api/v1/persistentvolumes", body)
        clean.wait(functools.partial(is_available, clean, name))
        clean.done("DELETE", f"/api/v1/persistentvolumes/{name}")
    # A controller gets half a minute for its work.
    clean.wait(lambda: len(diagnose(clean)) == 3, 60)
    answer(clean, "held", "volume-terminating-finalizer", "example.com/backup", "do not remove it by hand")
    found = answer(clean, "csi", "volume-terminating-provisioner", csi, "csi.example.com")
    assert found["certainty"] == "certain"
    for name in ("held", "csi"):
        clean.patch(f"/api/v1/persistentvolumes/{name}", {"metadata": {"finalizers": None}})


# Pods, Services, manifests --------------------------------------------------------------------------------


def test_claims_of_pods(clean: Cluster) -> None:
    make_namespace(clean, "test")
    clean.make_volume("data", storage_class="nfs")
    make_claim(clean, "test-claim", storageClassName="nfs")
    clean.wait_bound("test-claim")
    make_node(clean, "elsewhere")
    make_pod(clean, "wrong", "test-claim", "test")
    make_pod(clean, "missing", "nowhere")
    found = answer(clean, "wrong", "claim-in-other-namespace", "namespace default, not in test")
    assert "claim default/test-claim exists" in found["evidence"]
    answer(clean, "missing", "claim-missing", "nowhere", "namespace default")
    clean.wait(lambda: clean.done("GET", f"{PODS}/missing")["status"].get("conditions"))
    found = answer(clean, "missing", "claim-missing", "nowhere", namespace="default", pod="missing")
    # The scheduler says the same in its own words.
    assert any("scheduler: " in one and "not found" in one for one in found["evidence"]), found


def test_a_claim_that_waits_for_its_pods_to_go(clean: Cluster) -> None:
    clean.make_bound("used", storage_class="nfs")
    make_node(clean, "elsewhere")
    make_pod(clean, "user", "used", nodeName="elsewhere")
    clean.done("DELETE", "/api/v1/namespaces/default/persistentvolumeclaims/used")
    clean.wait(lambda: clean.claim("used")["metadata"].get("deletionTimestamp"))
    assert not [one for one in diagnose(clean) if one["object"]["name"] == "used"]
    clean.wait(lambda: [one for one in diagnose(clean) if one["object"]["name"] == "used"], 60)
    answer(clean, "used", "claim-in-use", "pods use it (user)")


def test_the_web_application_of_the_walk_through_as_printed(clean: Cluster) -> None:
    """Its selector does not match its own pods, so the API refuses it and its Service stays without endpoints."""
    make_namespace(clean, "test")
    printed = deployment("nginx-deploy", {"name": "nginx"}, {"app": "nginx"})
    printed["metadata"]["namespace"] = "test"
    status, refusal = clean.request("POST", f"{APPS}/test/deployments", printed)
    assert status == 422
    assert "selector" in refusal["message"]
    service = {"metadata": {"name": "test-nginx"}, "spec": {"selector": {"app": "nginx"}, "ports": [{"port": 80}]}}
    clean.done("POST", "/api/v1/namespaces/test/services", service)
    answer(clean, "test-nginx", "service-without-endpoints", "no pod in its namespace has app=nginx")
    found = answer(
        clean,
        "nginx-deploy",
        "selector-not-matching-template",
        "refused by the API",
        namespace="test",
        manifests=[printed],
    )
    assert found["evidence"] == ["selector: app=nginx; labels of the template: name=nginx"]
    # As corrected its pods come, and wait for a node here.
    corrected = deployment("nginx-deploy", {"app": "nginx"})
    clean.done("POST", f"{APPS}/test/deployments", corrected)
    clean.wait(lambda: clean.done("GET", "/api/v1/namespaces/test/pods")["items"])
    answer(clean, "test-nginx", "service-without-endpoints", "none of its pods is ready")
    clean.patch(f"{APPS}/test/deployments/nginx-deploy", {"spec": {"replicas": 0}})
    clean.wait(lambda: not clean.done("GET", "/api/v1/namespaces/test/pods")["items"])
    assert diagnose(clean, namespace="test") == [], "scaled to nothing on purpose"


def test_versions_of_the_api_that_are_gone(clean: Cluster) -> None:
    old = {
        "apiVersion": "networking.k8s.io/v1beta1",
        "kind": "Ingress",
        "metadata": {"name": "old", "namespace": "default"},
    }
    never = {"apiVersion": "extensions/v1", "kind": "Ingress", "metadata": {"name": "never", "namespace": "default"}}
    for manifest, path in ((old, "networking.k8s.io/v1beta1"), (never, "extensions/v1")):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            clean.plane.request("POST", f"/apis/{path}/namespaces/default/ingresses", manifest)
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    applied = json.dumps({**old, "metadata": {"name": "kept", "namespace": "default"}})
    metadata = {"name": "kept", "annotations": {"kubectl.kubernetes.io/last-applied-configuration": applied}}
    clean.done("POST", f"{NETWORKING}/default/ingresses", {"metadata": metadata, "spec": {"defaultBackend": backend}})
    given = [old, never, {**old, "apiVersion": "networking.k8s.io/v1", "metadata": {"name": "good"}}]
    found = diagnose(clean, manifests=given)
    clean.done("DELETE", f"{NETWORKING}/default/ingresses/kept")
    assert [(one["object"]["name"], one["cause"]) for one in found] == [
        ("kept", "api-version-removed"),
        ("never", "api-version-not-served"),
        ("old", "api-version-removed"),
    ]
    assert "gone since Kubernetes 1.22; write networking.k8s.io/v1" in found[2]["sentence"]
    assert "write networking.k8s.io/v1" in found[1]["sentence"]


# The whole ------------------------------------------------------------------------------------------------


def test_on_a_healthy_cluster_it_says_nothing(clean: Cluster, provisioner: Callable[..., None]) -> None:
    provisioner()
    make_class(clean, "managed", default=True)
    for name in ("a", "b"):
        clean.make_bound(f"static-{name}", storage_class="nfs")
        make_claim(clean, f"dynamic-{name}")
        clean.wait_bound(f"dynamic-{name}")
    clean.make_released(["kept"])
    clean.make_volume("free")
    clean.wait(lambda: clean.phase("free") == "Available")
    assert diagnose(clean) == []


def test_a_namespace_a_claim_or_a_pod_alone(clean: Cluster) -> None:
    make_namespace(clean, "test")
    for namespace in ("default", "test"):
        make_claim(clean, "typo", namespace, storageClassName="typo")
        make_claim(clean, "other", namespace, storageClassName="typo")
    make_pod(clean, "user", "typo")

    def names(**target: str) -> list[tuple[str, str]]:
        return [(one["object"]["namespace"], one["object"]["name"]) for one in diagnose(clean, **target)]

    assert names() == [("default", "other"), ("default", "typo"), ("test", "other"), ("test", "typo")]
    assert names(namespace="test") == [("test", "other"), ("test", "typo")]
    assert names(namespace="test", claim="typo") == [("test", "typo")]
    assert names(namespace="default", pod="user") == [("default", "typo")]
    refused = run(clean, namespace="kube-system", claim="typo")
    assert refused["failed"]
    assert refused["msg"] == 'claim: there is no claim "typo" in namespace "kube-system"; there is one in default, test'
    assert run(clean, claim="typo")["failed"]


RIGHTS = {
    ("", "persistentvolumes", "list"),
    ("", "persistentvolumeclaims", "list"),
    ("", "pods", "list"),
    ("", "events", "list"),
    ("", "services", "list"),
    ("", "nodes", "list"),
    ("", "endpoints", "list"),
    ("storage.k8s.io", "storageclasses", "list"),
    ("apps", "deployments", "list"),
    ("apps", "statefulsets", "list"),
    ("discovery.k8s.io", "endpointslices", "list"),
    ("networking.k8s.io", "ingresses", "list"),
    ("coordination.k8s.io", "leases", "list"),
    ("", "pods/log", "get"),
    ("authorization.k8s.io", "subjectaccessreviews", "create"),
}


def rules(rights: set[tuple[str, str, str]]) -> list[dict[str, Any]]:
    return [{"apiGroups": [group], "resources": [what], "verbs": [verb]} for group, what, verb in sorted(rights)]


def test_the_documented_rights_suffice_and_each_that_is_missing_is_named(clean: Cluster) -> None:
    make_class(clean, "managed")
    make_claim(clean, "waits", storageClassName="managed")
    clean.done("POST", f"{APPS}/default/deployments", provisioner_deployment("gone", PROVISIONER))
    # A container that failed, whose log is asked for. No kubelet is there to say it.
    clean.make_bound("data", storage_class="nfs")
    make_node(clean, "elsewhere")
    make_pod(clean, "failed", "data", nodeName="elsewhere")
    failed = {"name": "c", "state": {"terminated": {"exitCode": 1, "message": "touch: /d/x: Permission denied"}}}
    status = {
        "phase": "Failed",
        "containerStatuses": [{"ready": False, "restartCount": 0, "image": "", "imageID": "", **failed}],
    }
    clean.patch(f"{PODS}/failed/status", {"status": status})
    everything = clean.service_account("doctor", rules(RIGHTS))
    result = run(clean, kubeconfig=everything)
    assert [one["resource"] for one in result["unavailable"]] == ["pods/log"], "only since there is no kubelet"
    assert "not allowed" not in result["unavailable"][0]["reason"]
    whole = [one["cause"] for one in result["findings"]]
    assert "provisioner-without-rights" in whole
    for missing in sorted(RIGHTS):
        group, resource, verb = missing
        kubeconfig = clean.service_account("doctor", rules(RIGHTS - {missing}))

        def named(
            kubeconfig: Any = kubeconfig, verb: str = verb, title: str = f"{resource}.{group}".rstrip(".")
        ) -> bool:
            result = run(clean, kubeconfig=kubeconfig)
            assert not result.get("failed"), result
            said = [one for one in result["unavailable"] if (one["verb"], one["resource"]) == (verb, title)]
            return bool(said) and "not allowed" in said[0]["reason"] and bool(said[0]["costs"])

        # The authorizer learns of new rules a moment later.
        clean.wait(named, 20)


def test_somebody_with_rights_in_one_namespace_gets_the_answers_of_it(clean: Cluster) -> None:
    make_namespace(clean, "test")
    make_pod(clean, "missing", "nowhere", "test")
    clean.service_account("local", [])
    rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/test"
    local = [{"apiGroups": [""], "resources": ["pods", "persistentvolumeclaims"], "verbs": ["list"]}]
    clean.request("POST", f"{rbac}/roles", {"metadata": {"name": "local"}, "rules": local})
    subject = {"kind": "ServiceAccount", "name": "local", "namespace": "default"}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "local"}
    clean.request(
        "POST", f"{rbac}/rolebindings", {"metadata": {"name": "local"}, "subjects": [subject], "roleRef": reference}
    )
    token = clean.done("POST", "/api/v1/namespaces/default/serviceaccounts/local/token", {"spec": {}})
    kubeconfig = clean.kubeconfig_with({"token": token["status"]["token"]})

    def found() -> list[str]:
        result = run(clean, kubeconfig=kubeconfig, namespace="test")
        costs = [one["costs"] for one in result["unavailable"] if one["resource"] == "pods"]
        assert not costs or costs[0].startswith("in namespaces other than test")
        return [one["cause"] for one in result["findings"]]

    clean.wait(lambda: found() == ["claim-missing"], 20)


def test_run_by_ansible_with_the_action_group(clean: Cluster) -> None:
    make_claim(clean, "typo", storageClassName="typo")
    clean.wait(lambda: clean.claim("typo")["status"].get("phase") == "Pending")
    result = clean.module("storage_diagnose", "--check", namespace="default")
    assert [one["cause"] for one in result["findings"]] == ["class-unknown"]
    assert result["changed"] is False


def test_the_playbook_prints_sentences_and_names_hosts_that_cannot_be_reached(clean: Cluster, tmp_path: Path) -> None:
    healthy = clean.play("clusterkit.storage.diagnose")
    assert healthy.returncode == 0, healthy.stdout + healthy.stderr
    assert "Nothing is stuck." in healthy.stdout
    make_claim(clean, "typo", storageClassName="typo")
    # Only the log of the provisioner can tell, so that the hosts are asked.
    make_class(clean, "managed")
    make_claim(clean, "waits", storageClassName="managed")
    image = {"image": "quay.io/external_storage/nfs-client-provisioner:latest"}
    clean.done("POST", f"{APPS}/default/deployments", provisioner_deployment("old", PROVISIONER, container=image))
    answer(clean, "waits", "provisioner-selflink")
    away = {"ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_ssh_retries": 0}
    groups = {"nfs_servers": {"hosts": {"filer": away}}, "nfs_clients": {"hosts": {"worker": away}}}
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(
        json.dumps({"all": {"hosts": {"localhost": {"ansible_connection": "local"}}, "children": groups}})
    )
    manifests = tmp_path / "manifests.yml"
    manifests.write_text("apiVersion: extensions/v1\nkind: Ingress\nmetadata: {name: old, namespace: default}\n---\n")
    sick = clean.play(
        "clusterkit.storage.diagnose",
        *("-i", str(inventory)),
        diagnose_namespace="default",
        diagnose_manifests=str(manifests),
    )
    assert sick.returncode == 0, sick.stdout + sick.stderr
    told = " ".join(sick.stdout.split())
    for line in (
        "Claim default/typo asks for class typo, which does not exist",
        "Claim default/waits: the image of provisioner example.com/nfs needs selfLink",
        "(probable; check log of provisioner example.com/nfs",
        "Ingress default/old: apiVersion extensions/v1 is not served by this cluster",
        "Not asked: filer: ",
        "Not asked: worker: ",
    ):
        assert line in told, sick.stdout
