# SPDX-License-Identifier: GPL-3.0-or-later
"""etcd, API server, controller manager and scheduler on the loopback; ready after about 3 s."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import json
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from lab.command import require, run
from lab.process import Process
from lab.settings import LabError, Machine

HOST_AS_SEEN_BY_GUESTS = "10.0.2.2"  # QEMU's user network
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


@dataclasses.dataclass(frozen=True)
class Ports:
    """Loopback ports of the control plane."""

    api: int
    etcd_client: int
    etcd_peer: int
    controller_manager: int
    scheduler: int


class ControlPlane:
    def __init__(self, folder: Path, ports: Ports, kubernetes: Path, etcd: Path) -> None:
        self.folder = folder
        self.ports = ports
        self.kubernetes = kubernetes
        self.kubeconfig = folder / "admin.kubeconfig"
        self.audit_log = folder / "audit.log"
        self._etcd_program = etcd / "etcd"
        self._pki = folder / "pki"
        self.etcd = Process(folder, "etcd")
        self.api_server = Process(folder, "kube-apiserver")
        self.controller_manager = Process(folder, "kube-controller-manager")
        self.scheduler = Process(folder, "kube-scheduler")

    @property
    def processes(self) -> list[Process]:
        return [self.etcd, self.api_server, self.controller_manager, self.scheduler]

    # Certificates --------------------------------------------------------------------------------

    def make_certificates(self, nodes: Iterable[Machine]) -> None:
        """Python 3.13 checks strictly: the CA with keyUsage, leaves with authorityKeyIdentifier."""
        require("openssl")
        self._pki.mkdir(mode=0o700)
        self._openssl("ecparam -name prime256v1 -genkey -noout -out ca.key")
        self._openssl(
            "req -x509 -new -key ca.key -subj /CN=lab -days 3650 -addext keyUsage=critical,keyCertSign,cRLSign "
            "-out ca.crt"
        )
        names = f"IP:127.0.0.1,IP:{HOST_AS_SEEN_BY_GUESTS},IP:10.96.0.1,DNS:localhost,DNS:kubernetes.default.svc"
        self._certificate("apiserver", "/CN=kube-apiserver", names)
        self._openssl("genrsa -out service-account.key 2048")
        self._openssl("rsa -in service-account.key -pubout -out service-account.pub")
        users = {
            "admin": ("/O=system:masters/CN=admin", "127.0.0.1"),
            "kube-controller-manager": ("/CN=system:kube-controller-manager", "127.0.0.1"),
            "kube-scheduler": ("/CN=system:kube-scheduler", "127.0.0.1"),
            "kube-proxy": ("/CN=system:kube-proxy", HOST_AS_SEEN_BY_GUESTS),
        }
        for node in nodes:
            users[node.name] = (f"/O=system:nodes/CN=system:node:{node.name}", HOST_AS_SEEN_BY_GUESTS)
        for name, (subject, host) in users.items():
            self._certificate(name, subject)
            self._write_kubeconfig(name, host)

    def _openssl(self, arguments: str) -> None:
        run(["openssl", *arguments.split(" ")], cwd=self._pki)

    def _certificate(self, name: str, subject: str, alternative_names: str = "") -> None:
        self._openssl(f"ecparam -name prime256v1 -genkey -noout -out {name}.key")
        self._openssl(f"req -new -key {name}.key -subj {subject} -out {name}.csr")
        extensions = ["authorityKeyIdentifier=keyid", "subjectKeyIdentifier=hash"]
        extensions += ["keyUsage=critical,digitalSignature", "extendedKeyUsage=serverAuth,clientAuth"]
        if alternative_names:
            extensions.append(f"subjectAltName={alternative_names}")
        (self._pki / f"{name}.ext").write_text("\n".join(extensions) + "\n")
        self._openssl(
            f"x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -out {name}.crt "
            f"-extfile {name}.ext"
        )

    def _write_kubeconfig(self, name: str, host: str) -> None:
        def data(file: str) -> str:
            return base64.b64encode((self._pki / file).read_bytes()).decode()

        cluster = {"server": f"https://{host}:{self.ports.api}", "certificate-authority-data": data("ca.crt")}
        user = {"client-certificate-data": data(f"{name}.crt"), "client-key-data": data(f"{name}.key")}
        path = self.folder / f"{name}.kubeconfig"
        path.touch(mode=0o600)
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "lab", "cluster": cluster}],
                    "users": [{"name": name, "user": user}],
                    "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": name}}],
                    "current-context": "lab",
                }
            )
        )

    @property
    def ca(self) -> str:
        return (self._pki / "ca.crt").read_text()

    def kubeconfig_of(self, name: str) -> str:
        return (self.folder / f"{name}.kubeconfig").read_text()

    # Processes -----------------------------------------------------------------------------------

    def start(self) -> None:
        pki, ports, programs = self._pki, self.ports, self.kubernetes
        (self.folder / "etcd").mkdir(mode=0o700, exist_ok=True)
        client, peer = f"http://127.0.0.1:{ports.etcd_client}", f"http://127.0.0.1:{ports.etcd_peer}"
        argv: list[str | Path] = [self._etcd_program, "--data-dir", self.folder / "etcd", "--unsafe-no-fsync"]
        argv += ["--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer]
        argv += ["--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"]
        argv += ["--quota-backend-bytes", str(4 << 30)]
        self.etcd.start(argv)
        policy = self.folder / "audit-policy.yaml"
        policy.write_text(yaml.safe_dump(AUDIT_POLICY))
        self.api_server.start(
            [
                programs / "kube-apiserver",
                f"--etcd-servers={client}",
                "--bind-address=127.0.0.1",
                f"--advertise-address={HOST_AS_SEEN_BY_GUESTS}",
                f"--secure-port={ports.api}",
                f"--tls-cert-file={pki}/apiserver.crt",
                f"--tls-private-key-file={pki}/apiserver.key",
                f"--client-ca-file={pki}/ca.crt",
                f"--service-account-key-file={pki}/service-account.pub",
                f"--service-account-signing-key-file={pki}/service-account.key",
                "--service-account-issuer=https://kubernetes.default.svc",
                "--service-cluster-ip-range=10.96.0.0/16",
                "--authorization-mode=Node,RBAC",
                f"--kubelet-client-certificate={pki}/admin.crt",
                f"--kubelet-client-key={pki}/admin.key",
                "--kubelet-preferred-address-types=InternalIP",
                "--allow-privileged",
                f"--audit-policy-file={policy}",
                f"--audit-log-path={self.audit_log}",
                "--audit-log-maxsize=200",
                "--audit-log-maxbackup=2",
            ]
        )
        self._wait_ready()
        self.controller_manager.start(
            [
                programs / "kube-controller-manager",
                f"--kubeconfig={self.folder}/kube-controller-manager.kubeconfig",
                f"--service-account-private-key-file={pki}/service-account.key",
                f"--root-ca-file={pki}/ca.crt",
                f"--cluster-signing-cert-file={pki}/ca.crt",
                f"--cluster-signing-key-file={pki}/ca.key",
                "--bind-address=127.0.0.1",
                f"--secure-port={ports.controller_manager}",
                "--use-service-account-credentials",
                "--leader-elect=false",
                "--kube-api-qps=2000",
                "--kube-api-burst=4000",
            ]
        )
        self.scheduler.start(
            [
                programs / "kube-scheduler",
                f"--kubeconfig={self.folder}/kube-scheduler.kubeconfig",
                "--bind-address=127.0.0.1",
                f"--secure-port={ports.scheduler}",
                "--leader-elect=false",
            ]
        )
        self._wait_for("default service account", self._has_default_service_account)
        for process in self.processes:
            if not process.pid:
                raise LabError(f"{process.name} ended at once:\n{process.said()}")

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.stop()

    def _wait_for(self, what: str, true: Any, patience: float = 90) -> None:
        deadline = time.monotonic() + patience
        while not true():
            for process in self.processes[:2]:
                if not process.pid:
                    raise LabError(f"{process.name} ended:\n{process.said()}")
            if time.monotonic() > deadline:
                raise LabError(f"no {what} after {patience:.0f} s; see {self.api_server.log}")
            time.sleep(0.2)

    def _wait_ready(self) -> None:
        self._wait_for("ready API server", lambda: self._try("GET", "/readyz") is not None)

    def _has_default_service_account(self) -> bool:
        return self._try("GET", "/api/v1/namespaces/default/serviceaccounts/default") is not None

    # Requests ------------------------------------------------------------------------------------

    def request(self, method: str, path: str, body: object = None, content_type: str = "application/json") -> Any:
        context = ssl.create_default_context(cafile=str(self._pki / "ca.crt"))
        context.load_cert_chain(self._pki / "admin.crt", self._pki / "admin.key")
        request = urllib.request.Request(
            f"https://127.0.0.1:{self.ports.api}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": content_type},
        )
        with urllib.request.urlopen(request, timeout=20, context=context) as response:  # noqa: S310 (always https)
            text = response.read().decode()
        return json.loads(text) if text.startswith("{") else text

    def _try(self, method: str, path: str) -> Any:
        try:
            return self.request(method, path)
        except (urllib.error.URLError, OSError):
            return None

    def node(self, name: str) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self._try("GET", f"/api/v1/nodes/{name}")
        return found

    def node_ready(self, name: str, since: float = 0) -> bool:
        """Ready, and its kubelet was heard of after `since` (seconds of the epoch).

        The condition alone may be the one of a snapshot; the lease is renewed every 10 s.
        """
        lease = self._try("GET", f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}")
        if not lease or datetime.datetime.fromisoformat(lease["spec"]["renewTime"]).timestamp() < since:
            return False
        conditions = (self.node(name) or {}).get("status", {}).get("conditions", [])
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    def adopt(self, node: str, address: str) -> None:
        """Give the node the loopback address that leads to its kubelet, and let pods come."""
        addresses = [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": node}]
        merge = "application/merge-patch+json"
        self.request("PATCH", f"/api/v1/nodes/{node}/status", {"status": {"addresses": addresses}}, merge)
        self.request("PATCH", f"/api/v1/nodes/{node}", {"spec": {"taints": None}}, merge)

    # Snapshots -----------------------------------------------------------------------------------

    def save(self, snapshot: Path) -> None:
        """Copy certificates, kubeconfigs and etcd's data; the processes must be stopped."""
        for name in ("pki", "etcd"):
            shutil.copytree(self.folder / name, snapshot / name)
        for file in self.folder.glob("*.kubeconfig"):
            shutil.copy(file, snapshot)

    def load(self, snapshot: Path) -> None:
        for name in ("pki", "etcd"):
            if (self.folder / name).exists():
                shutil.rmtree(self.folder / name)
            shutil.copytree(snapshot / name, self.folder / name)
        for file in snapshot.glob("*.kubeconfig"):
            shutil.copy(file, self.folder)
