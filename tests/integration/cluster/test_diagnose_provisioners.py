# SPDX-License-Identifier: GPL-3.0-or-later
"""storage_diagnose: provisioners that do not run, may not, are too old or complain; and one that is well."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import binaries

from .cluster import PROVISIONER, Cluster
from .diagnosis import APPS, CLASSES, PODS, STOPPED, answer, diagnose, make_claim, make_class, provisioner_deployment

# Minutes of waiting for controllers.
pytestmark = pytest.mark.long


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
