# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifests of docs/examples.md on nodes: pods run, and the web application serves what lies on the server."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from lab.lifecycle import Lab
from lab.machine import Guest

from .cluster.test_examples import HOST_PATH_TYPES, OBJECTS, PATHS
from .objects import Objects

# Pods on emulated nodes: a minute or two.
pytestmark = pytest.mark.long

NODES = ("192.168.77.21", "192.168.77.22")
FETCH = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=20).read().decode())"


def get(node: Guest, address: str) -> str:
    return node.ssh(f"python3 -c '{FETCH}' http://{address}/").strip()


def test_every_example_runs_and_the_web_application_is_served_from_the_share(restored: Lab) -> None:
    objects = Objects(restored, "test")
    request, server, node = objects.request, restored.guest("server1"), restored.guest("node1")
    server.ssh("echo by hand > /nfs/k8s/web/index.html")
    request("POST", "/api/v1/namespaces", {"metadata": {"name": "test"}})
    accounts = "/api/v1/namespaces/test/serviceaccounts"
    objects.wait("the namespace has its account", lambda: request("GET", accounts)["items"])
    for one in OBJECTS:
        if one["kind"] != "Namespace":
            request("POST", PATHS[one["kind"]], one)

    def pod(name: str) -> dict[str, Any]:
        found: dict[str, Any] = request("GET", f"{objects.pods}/{name}")
        return found

    def is_ready(name: str) -> bool:
        states = pod(name)["status"].get("containerStatuses") or [{}]
        return all(state.get("ready") for state in states)

    for name in ("empty-dir", "host-path", "inline-nfs"):
        objects.wait(f"{name} is ready", partial(is_ready, name))
    objects.wait("a line by way of emptyDir", lambda: request("GET", f"{objects.pods}/empty-dir/log?container=reader"))
    listed = request("GET", f"{objects.pods}/host-path/log")
    assert len([line for line in listed.splitlines() if not line.startswith("total")]) == len(HOST_PATH_TYPES)
    on_node = restored.guest(pod("inline-nfs")["spec"]["nodeName"])
    assert get(on_node, pod("inline-nfs")["status"]["podIP"]) == "by hand"

    deployment = f"{PATHS['Deployment']}/web"
    objects.wait("both pods answer", lambda: request("GET", deployment)["status"].get("readyReplicas") == 2, 400)
    directory = f"/nfs/k8s/dpv/test-web-{objects.volume_of('web')}"
    assert server.ssh(f"cat {directory}/index.html").strip() == "hello"
    pods = [pod(name) for name in objects.names(objects.pods) if name.startswith("web-")]
    # By the Service, on each node, and from each pod, whose node may be another one.
    addresses = [*(f"{address}:30080" for address in NODES), *(one["status"]["podIP"] for one in pods)]
    assert {address: get(node, address) for address in addresses} == dict.fromkeys(addresses, "hello")
    server.ssh(f"echo news > {directory}/index.html")
    # Clients look again at what the server has after some seconds.
    objects.wait("all serve the news", lambda: {get(node, address) for address in addresses} == {"news"})
    assert request("GET", f"{PATHS['Ingress']}/web")["spec"]["rules"][0]["host"] == "web.example.org"
