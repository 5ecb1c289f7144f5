# SPDX-License-Identifier: GPL-3.0-or-later
"""storage_diagnose: pods, Services and manifests."""

from __future__ import annotations

import json
import urllib.error

import pytest

from .cluster import Cluster
from .diagnosis import APPS, PODS, answer, deployment, diagnose, make_claim, make_namespace, make_node, make_pod

NETWORKING = "/apis/networking.k8s.io/v1/namespaces"

# Minutes of waiting for controllers.
pytestmark = pytest.mark.long


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
