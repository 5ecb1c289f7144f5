# SPDX-License-Identifier: GPL-3.0-or-later
"""A node without a machine: pods become Running and Ready at once, and go when they are deleted.

Commands for their containers run on this machine.
"""

from __future__ import annotations

import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.exec_server import run_for

from .cluster import Cluster

NODE = "without-machine"
PAUSE = 0.5


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        run_for(self)  # the API server asks for nothing else


class Kubelet:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        pki = cluster.plane.folder / "pki"
        context.load_cert_chain(pki / "apiserver.crt", pki / "apiserver.key")
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._commands = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)

    def __enter__(self) -> Kubelet:
        status, answer = self._cluster.request("POST", "/api/v1/nodes", {"metadata": {"name": NODE}})
        assert status in (201, 409), answer
        self._ready()
        self._thread.start()
        self._commands.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stopped.set()
        self._thread.join()
        self._server.shutdown()
        self._server.server_close()
        self._commands.join()
        self._cluster.request("DELETE", f"/api/v1/nodes/{NODE}")

    def _ready(self) -> None:
        capacity = {"cpu": "8", "memory": "16Gi", "pods": "110"}
        # Without a new heartbeat the node counts as gone after 50 s, and its pods as not ready.
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        condition = {"type": "Ready", "status": "True", "reason": "Test", "message": "", "lastHeartbeatTime": now}
        body = {
            "status": {
                "capacity": capacity,
                "allocatable": capacity,
                "conditions": [condition],
                "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": self._server.server_address[1]}},
            }
        }
        self._cluster.request("PATCH", f"/api/v1/nodes/{NODE}/status", body, "application/strategic-merge-patch+json")
        self._cluster.request(
            "PATCH", f"/api/v1/nodes/{NODE}", {"spec": {"taints": None}}, "application/merge-patch+json"
        )

    def _run(self) -> None:
        while not self._stopped.wait(PAUSE):
            self._ready()
            for pod in self._cluster.done("GET", f"/api/v1/pods?fieldSelector=spec.nodeName={NODE}")["items"]:
                self._care_for(pod)

    def _care_for(self, pod: dict[str, Any]) -> None:
        metadata = pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        if metadata.get("deletionTimestamp"):
            self._cluster.request("DELETE", f"{path}?gracePeriodSeconds=0")
        elif pod["status"].get("phase") == "Pending":
            containers = [
                {
                    "name": one["name"],
                    "image": one["image"],
                    "imageID": "",
                    "ready": True,
                    "restartCount": 0,
                    "state": {"running": {}},
                }
                for one in pod["spec"]["containers"]
            ]
            ready = [{"type": kind, "status": "True"} for kind in ("Initialized", "ContainersReady", "Ready")]
            body = {"status": {"phase": "Running", "conditions": ready, "containerStatuses": containers}}
            self._cluster.request("PATCH", f"{path}/status", body, "application/merge-patch+json")
