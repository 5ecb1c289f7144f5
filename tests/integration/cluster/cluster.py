# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests do with the cluster, past the code under test: make objects, look at them, run modules and playbooks."""

from __future__ import annotations

import base64
import http.client
import json
import os
import ssl
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lab.control_plane import ControlPlane

ROOT = Path(__file__).resolve().parents[3]
BIN = ROOT / ".work/venv/bin"
ANNOTATION = "pv.kubernetes.io/provisioned-by"
PROVISIONER = "example.com/nfs"


@dataclass
class Cluster:
    plane: ControlPlane
    _local: threading.local = field(default_factory=threading.local)

    def __post_init__(self) -> None:
        pki = self.plane.folder / "pki"
        self._context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        self._context.load_cert_chain(pki / "admin.crt", pki / "admin.key")

    @property
    def port(self) -> int:
        return self.plane.ports.api

    @property
    def kubeconfig(self) -> str:
        return str(self.plane.kubeconfig)

    # Requests, on one kept-alive connection a thread --------------------------------------------

    def request(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> tuple[int, Any]:
        for attempt in (1, 2):
            connection = getattr(self._local, "connection", None)
            if connection is None:
                connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=self._context, timeout=30)
                self._local.connection = connection
            try:
                data = None if body is None else json.dumps(body)
                connection.request(method, path, data, {"Content-Type": kind})
                answer = connection.getresponse()
                content = answer.read()
                # Of an address that it does not know the server says so in plain text.
                is_json = answer.headers.get_content_type() == "application/json"
                return answer.status, json.loads(content) if is_json else content.decode()
            except (http.client.HTTPException, OSError):
                self._local.connection = None
                if attempt == 2:
                    raise
        raise AssertionError

    def done(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        status, answer = self.request(method, path, body, kind)
        assert status < 300, (method, path, status, answer)
        return answer

    def patch(self, path: str, body: Any) -> Any:
        return self.done("PATCH", path, body, "application/merge-patch+json")

    def many(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        with ThreadPoolExecutor(16) as pool:
            return list(pool.map(function, items))

    # Volumes -------------------------------------------------------------------------------------

    def volume(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.done("GET", f"/api/v1/persistentvolumes/{name}")
        return found

    def volumes(self) -> dict[str, dict[str, Any]]:
        return {one["metadata"]["name"]: one for one in self.done("GET", "/api/v1/persistentvolumes")["items"]}

    def make_volume(self, name: str, **more: Any) -> dict[str, Any]:
        made: dict[str, Any] = self.done("POST", "/api/v1/persistentvolumes", volume(name, **more))
        return made

    def make_released(self, names: Iterable[str], **more: Any) -> None:
        """Volumes whose claim is gone: the controller finds that out by itself."""
        names = list(names)
        self.many(lambda name: self.make_volume(name, claim=("default", f"claim-{name}"), **more), names)
        wanted = set(names)
        self.wait(
            lambda: all(
                one["status"].get("phase") in ("Released", "Failed")
                for name, one in self.volumes().items()
                if name in wanted
            ),
            patience=60 + len(names) / 50,
        )

    def phase(self, name: str) -> str:
        return str(self.volume(name)["status"].get("phase"))

    def wait(self, true: Callable[[], Any], patience: float = 60) -> Any:
        deadline = time.monotonic() + patience
        while True:
            found = true()
            if found:
                return found
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.1)

    def clear(self) -> None:
        """Remove all claims, pods and volumes; who waits for a node that is not there is not waited for."""
        for one in self.done("GET", "/api/v1/persistentvolumeclaims")["items"]:
            path = f"/api/v1/namespaces/{one['metadata']['namespace']}/persistentvolumeclaims/{one['metadata']['name']}"
            assert self.request("DELETE", path)[0] in (200, 404)
        self.done("DELETE", "/api/v1/namespaces/default/pods?gracePeriodSeconds=0")
        names = [one["metadata"]["name"] for one in self.done("GET", "/api/v1/persistentvolumes")["items"]]
        # All in one request take longer than a client waits, if they are thousands.
        assert {status for status, _answer in self.many(self.delete_volume, names)} <= {200, 404}
        self.wait(lambda: not self.done("GET", "/api/v1/persistentvolumes?limit=1")["items"], 120)

    def delete_volume(self, name: str) -> tuple[int, Any]:
        return self.request("DELETE", f"/api/v1/persistentvolumes/{name}")

    def make_class(self, name: str, *, expands: bool = True) -> None:
        body = {"metadata": {"name": name}, "provisioner": PROVISIONER, "allowVolumeExpansion": expands}
        status, answer = self.request("POST", "/apis/storage.k8s.io/v1/storageclasses", body)
        assert status in (201, 409), answer

    def make_bound(self, name: str, *, storage_class: str = "", size: str = "1Gi", **more: Any) -> None:
        """A volume and its claim, both of this name."""
        self.make_volume(name, storage_class=storage_class, size=size, **more)
        self.make_claim(name, storage_class=storage_class, size=size, volume_name=name)
        # The last that the controller says of a claim without pods, a moment after Bound; then it leaves it alone.
        self.wait(lambda: "Unused" in {one["type"] for one in self.claim(name)["status"].get("conditions", [])})
        self.wait_bound(name)

    def wait_bound(self, claim: str) -> None:
        self.wait(lambda: self.claim(claim)["status"].get("phase") == "Bound")

    # Claims --------------------------------------------------------------------------------------

    def make_claim(self, name: str, namespace: str = "default", **more: Any) -> dict[str, Any]:
        path = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims"
        made: dict[str, Any] = self.done("POST", path, claim(name, **more))
        return made

    def claim(self, name: str, namespace: str = "default") -> dict[str, Any]:
        found: dict[str, Any] = self.done("GET", f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}")
        return found

    def delete_claim(self, name: str, namespace: str = "default") -> None:
        self.done("DELETE", f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}")
        path = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}"
        self.wait(lambda: self.request("GET", path)[0] == 404)

    def namespace(self, name: str, **labels: str) -> None:
        status, answer = self.request("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
        assert status in (201, 409), answer

    # Users ---------------------------------------------------------------------------------------

    def service_account(self, name: str, rules: list[dict[str, Any]]) -> dict[str, Any]:
        """A kubeconfig, as data, of a service account that has exactly these rules in the whole cluster."""
        self.request("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": name}})
        rbac = "/apis/rbac.authorization.k8s.io/v1"
        self.request("DELETE", f"{rbac}/clusterroles/{name}")
        self.done("POST", f"{rbac}/clusterroles", {"metadata": {"name": name}, "rules": rules})
        subject = {"kind": "ServiceAccount", "name": name, "namespace": "default"}
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
        binding = {"metadata": {"name": name}, "subjects": [subject], "roleRef": reference}
        self.request("POST", f"{rbac}/clusterrolebindings", binding)
        answer = self.done("POST", f"/api/v1/namespaces/default/serviceaccounts/{name}/token", {"spec": {}})
        return self.kubeconfig_with({"token": answer["status"]["token"]})

    def kubeconfig_with(self, user: Mapping[str, str], port: int = 0) -> dict[str, Any]:
        certificate = base64.b64encode(self.plane.ca.encode()).decode()
        server = {"server": f"https://127.0.0.1:{port or self.port}", "certificate-authority-data": certificate}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "own", "cluster": server}],
            "users": [{"name": "own", "user": dict(user)}],
            "contexts": [{"name": "own", "context": {"cluster": "own", "user": "own"}}],
            "current-context": "own",
        }

    # Ansible -------------------------------------------------------------------------------------

    def module(self, name: str, *options: str, kubeconfig: Any = None, **arguments: Any) -> dict[str, Any]:
        """The result of one module, run by `ansible` from the installed collection."""
        done = self.ansible(name, *options, kubeconfig=kubeconfig, **arguments)
        start = done.stdout.index(" => {") + len(" => ")
        result: dict[str, Any] = json.JSONDecoder().raw_decode(done.stdout[start:])[0]
        return result

    def ansible(
        self, name: str, *options: str, kubeconfig: Any = None, **arguments: Any
    ) -> subprocess.CompletedProcess[str]:
        given = {"kubeconfig": kubeconfig or self.kubeconfig, **arguments}
        argv = [
            str(BIN / "ansible"),
            "localhost",
            "-m",
            f"clusterkit.storage.{name}",
            "-a",
            json.dumps(given),
            *options,
        ]
        return subprocess.run(argv, env=environment(), capture_output=True, text=True, timeout=600, check=False)

    def direct(self, name: str, *, check: bool = False, diff: bool = False, **arguments: Any) -> dict[str, Any]:
        """The result of one module as a process of its own, without Ansible's controller: quicker."""
        process = self.start(name, check=check, diff=diff, **arguments)
        output, errors = process.communicate(timeout=600)
        assert output, errors
        result: dict[str, Any] = json.loads(output)
        return result

    def start(self, name: str, *, check: bool = False, diff: bool = False, **arguments: Any) -> subprocess.Popen[str]:
        given = {"kubeconfig": self.kubeconfig, **arguments, "_ansible_check_mode": check, "_ansible_diff": diff}
        code = RUN_MODULE.format(name=name, arguments=json.dumps({"ANSIBLE_MODULE_ARGS": given}))
        return subprocess.Popen(
            [str(BIN / "python"), "-c", code],
            env=environment() | {"PYTHONPATH": str(ROOT / ".work/collections")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def play(self, playbook: str | Path, *options: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        given = {"storage_kubeconfig": self.kubeconfig, **variables}
        argv = [str(BIN / "ansible-playbook"), str(playbook), "-e", json.dumps(given), *options]
        return subprocess.run(argv, env=environment(), capture_output=True, text=True, timeout=600, check=False)


RUN_MODULE = """
import sys
import ansible_collections
from ansible.module_utils import basic
basic._ANSIBLE_ARGS = {arguments!r}.encode()
basic._ANSIBLE_PROFILE = "legacy"
from ansible_collections.clusterkit.storage.plugins.modules import {name}
{name}.main()
"""


def environment() -> dict[str, str]:
    return {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "lab/ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".work/collections"),
        "ANSIBLE_HOME": str(ROOT / ".work/ansible"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_PYTHON_INTERPRETER": str(BIN / "python"),
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
    }


def volume(
    name: str,
    *,
    policy: str = "Retain",
    storage_class: str = "",
    claim: tuple[str, str] | None = None,
    provisioner: str | None = None,
    size: str = "1Gi",
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    source: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A PersistentVolume; with a claim of a uid that exists nowhere, so that it becomes Released."""
    notes = dict(annotations or {})
    if provisioner:
        notes |= {ANNOTATION: provisioner}
    spec: dict[str, Any] = {
        "capacity": {"storage": size},
        "accessModes": ["ReadWriteMany"],
        "persistentVolumeReclaimPolicy": policy,
        "storageClassName": storage_class,
        "mountOptions": ["hard"],
        **(source or {"nfs": {"server": "192.0.2.10", "path": f"/nfs/k8s/{name}"}}),
    }
    if claim:
        notes |= {"pv.kubernetes.io/bound-by-controller": "yes"}
        reference = {"kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": claim[0], "name": claim[1]}
        spec["claimRef"] = {**reference, "uid": str(uuid.uuid4())}
    return {"metadata": {"name": name, "annotations": notes, "labels": dict(labels or {})}, "spec": spec}


def claim(
    name: str, *, storage_class: str = "", size: str = "1Gi", volume_name: str = "", selector: Any = None
) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "accessModes": ["ReadWriteMany"],
        "storageClassName": storage_class,
        "resources": {"requests": {"storage": size}},
    }
    if volume_name:
        spec["volumeName"] = volume_name
    if selector:
        spec["selector"] = {"matchLabels": selector}
    return {"metadata": {"name": name}, "spec": spec}


def write_kubeconfig(path: Path, content: Mapping[str, Any]) -> str:
    path.write_text(yaml.safe_dump(dict(content)))
    return str(path)
