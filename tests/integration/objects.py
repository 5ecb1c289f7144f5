# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests make in the lab's cluster and wait for: claims, volumes, and pods that end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from lab.containers import BUSYBOX
from lab.lifecycle import Lab

VOLUMES = "/api/v1/persistentvolumes"
KEPT = "managed-nfs-storage"  # the class of the bootstrap
IDLE = "trap 'exit 0' TERM; while :; do sleep 1; done"


class Objects:
    """Claims and pods of one namespace, and the volumes of the cluster."""

    def __init__(self, lab: Lab, namespace: str = "default") -> None:
        self.request = lab.control_plane.request
        self.claims = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims"
        self.pods = f"/api/v1/namespaces/{namespace}/pods"

    def wait(self, what: str, done: Callable[[], object], seconds: float = 240) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
            time.sleep(1)

    def claim(self, name: str, storage_class: str, size: str = "1Mi", mode: str = "ReadWriteMany") -> None:
        spec = {
            "accessModes": [mode],
            "storageClassName": storage_class,
            "resources": {"requests": {"storage": size}},
        }
        self.request("POST", self.claims, {"metadata": {"name": name}, "spec": spec})

    def volume_of(self, claim: str) -> str:
        self.wait(
            f"{claim} is bound", lambda: self.request("GET", f"{self.claims}/{claim}")["status"]["phase"] == "Bound"
        )
        return str(self.request("GET", f"{self.claims}/{claim}")["spec"]["volumeName"])

    def phase(self, volume: str) -> str:
        return str(self.request("GET", f"{VOLUMES}/{volume}")["status"]["phase"])

    @staticmethod
    def pod(claim: str, script: str, **more: str) -> dict[str, Any]:
        """The specification of a pod that mounts the claim at /mnt and runs the script."""
        return {
            **more,
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": "c",
                    "image": BUSYBOX,
                    "command": ["sh", "-ec", script],
                    "terminationMessagePolicy": "FallbackToLogsOnError",
                    "volumeMounts": [{"name": "v", "mountPath": "/mnt"}],
                }
            ],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}],
        }

    def start(self, name: str, claim: str, script: str, **more: str) -> None:
        spec = self.pod(claim, script, restartPolicy="Never", **more)
        self.request("POST", self.pods, {"metadata": {"name": name}, "spec": spec})

    def finished(self, *names: str, seconds: float = 240) -> None:
        """Wait until the pods have succeeded, and remove them: a claim in use stays when it is deleted."""
        for name in names:
            phases: list[str] = []

            def ended(name: str = name, phases: list[str] = phases) -> bool:
                phases.append(self.request("GET", f"{self.pods}/{name}")["status"].get("phase", ""))
                return phases[-1] in {"Succeeded", "Failed"}

            self.wait(f"pod {name} is done", ended, seconds)
            assert phases[-1] == "Succeeded", self.request("GET", f"{self.pods}/{name}")["status"]
        for name in names:
            self.request("DELETE", f"{self.pods}/{name}")
        self.wait("the pods are gone", lambda: not set(names) & self.names(self.pods))

    def names(self, path: str) -> set[str]:
        return {item["metadata"]["name"] for item in self.request("GET", path)["items"]}

    def delete_claims(self, *names: str) -> None:
        for name in names:
            self.request("DELETE", f"{self.claims}/{name}")
        self.wait("the claims are gone", lambda: not set(names) & self.names(self.claims))
