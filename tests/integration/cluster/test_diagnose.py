# SPDX-License-Identifier: GPL-3.0-or-later
"""storage_diagnose where everything is real but the nodes: what is asked for, with which rights, and by whom.

Each fault is brought about, and the answer is compared, in the modules test_diagnose_*.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .cluster import PROVISIONER, Cluster
from .diagnosis import (
    APPS,
    PODS,
    answer,
    diagnose,
    make_claim,
    make_class,
    make_namespace,
    make_node,
    make_pod,
    provisioner_deployment,
    run,
)

# Minutes of waiting for controllers.
pytestmark = pytest.mark.long


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
