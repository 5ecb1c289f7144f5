# SPDX-License-Identifier: GPL-3.0-or-later
"""What stops pods, brought about on machines that mount: the playbook diagnose names it, with what the hosts say."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.lifecycle import Lab

from .conftest import Play, play

# kubelet and mount.nfs wait for minutes before they complain.
pytestmark = pytest.mark.long

CLAIMS = "/api/v1/namespaces/default/persistentvolumeclaims"
DEPLOYMENTS = "/apis/apps/v1/namespaces"
PODS = "/api/v1/namespaces/default/pods"
VOLUMES = "/api/v1/persistentvolumes"
CLASS = "managed-nfs-storage"
BUSYBOX = "docker.io/library/busybox:1.36"
SERVER, NETWORK, NOBODY = "192.168.77.11", "192.168.77.0/24", "192.168.77.99"
MERGE = "application/merge-patch+json"


class Doctor:
    """The playbook, and what it found."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.request = lab.control_plane.request
        self.folder = folder

    def run(self, **variables: Any) -> tuple[list[dict[str, Any]], Play]:
        keep = {
            "name": "Keep the findings",
            "hosts": "localhost",
            "gather_facts": False,
            "vars": {"answer": "{{ __diagnose_answer if __diagnose_second is skipped else __diagnose_second }}"},
            "tasks": [
                {
                    "name": "Write them down",
                    "ansible.builtin.copy": {
                        "content": "{{ answer | to_json }}",
                        "dest": str(self.folder / "answer.json"),
                        "mode": "0600",
                    },
                }
            ],
        }
        diagnosis = {"name": "Diagnose", "ansible.builtin.import_playbook": "clusterkit.storage.diagnose"}
        (self.folder / "doctor.yml").write_text(yaml.safe_dump([diagnosis, keep]))
        done = play(self.folder / "doctor.yml", *(f"-ediagnose_{key}={value}" for key, value in variables.items()))
        assert done.status == 0, done.output[-5000:]
        answer = json.loads((self.folder / "answer.json").read_text())
        for one in answer["findings"]:
            assert len(one["sentence"].split()) <= 30, one
            assert one["sentence"] in done.words.replace('\\"', '"'), one
        return answer["findings"], done

    def causes(self, **variables: Any) -> dict[str, tuple[str, str]]:
        """Cause and certainty by the name of the object."""
        found, _done = self.run(**variables)
        return {one["object"]["name"]: (one["cause"], one["certainty"]) for one in found}

    def wait(self, what: str, done: Callable[[], object], seconds: float = 240) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
            time.sleep(2)

    def patch(self, path: str, body: Any) -> None:
        self.request("PATCH", path, body, MERGE)

    def pod(self, name: str, source: dict[str, Any], script: str = "sleep 3600", **spec: Any) -> None:
        container = {
            "name": "c",
            "image": BUSYBOX,
            "command": ["sh", "-c", script],
            "volumeMounts": [{"name": "v", "mountPath": "/mnt"}],
        }
        body = {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
            "volumes": [{"name": "v", **source}],
            **spec,
        }
        self.request("POST", PODS, {"metadata": {"name": name}, "spec": body})

    def volume(self, name: str, path: str, options: list[str]) -> dict[str, Any]:
        """A volume with mount options, its claim bound to it, and what a pod writes to use it."""
        spec = {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "faults",
            "mountOptions": options,
            "nfs": {"server": SERVER, "path": path},
        }
        self.request("POST", VOLUMES, {"metadata": {"name": name}, "spec": spec})
        wanted = {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "faults",
            "volumeName": name,
            "resources": {"requests": {"storage": "1Gi"}},
        }
        self.request("POST", CLAIMS, {"metadata": {"name": name}, "spec": wanted})
        return {"persistentVolumeClaim": {"claimName": name}}

    def warned(self, pod: str, reason: str = "FailedMount") -> bool:
        query = f"fieldSelector=involvedObject.name={pod},reason={reason}"
        return bool(self.request("GET", f"/api/v1/namespaces/default/events?{query}")["items"])

    def phase(self, pod: str) -> str:
        return str(self.request("GET", f"{PODS}/{pod}")["status"].get("phase"))

    def has_ended(self, pod: str) -> bool:
        return self.phase(pod) in ("Failed", "Succeeded")


@pytest.fixture
def doctor(restored: Lab, tmp_path: Path) -> Doctor:
    return Doctor(restored, tmp_path)


def nfs(path: str, server: str = SERVER) -> dict[str, Any]:
    return {"nfs": {"server": server, "path": path}}


def test_after_the_bootstrap_nothing_is_stuck(lab: Lab, tmp_path: Path) -> None:
    found, done = Doctor(lab, tmp_path).run()
    assert found == []
    assert "Nothing is stuck." in done.words
    assert done.recap("server1")["ok"] == 0, "a healthy cluster costs the hosts nothing"


def test_mounts_that_fail(restored: Lab, doctor: Doctor) -> None:
    server = restored.guest("server1")
    server.ssh(
        "mkdir -p /nfs/k8s/closed /nfs/k8s/secure"
        " && exportfs -o rw,no_subtree_check 198.51.100.7:/nfs/k8s/closed"
        f" && exportfs -o rw,secure,no_subtree_check {NETWORK}:/nfs/k8s/secure"
    )
    # A node without the helper of mount(8), and a server without NFSv3.
    restored.guest("node2").ssh("mv /sbin/mount.nfs /sbin/mount.nfs.away")
    server.ssh(
        "mkdir -p /etc/nfs.conf.d && printf '[nfsd]\\nvers3=n\\n' > /etc/nfs.conf.d/faults.conf"
        " && systemctl restart nfs-server"
    )
    server.ssh(f"exportfs -o rw,no_subtree_check 198.51.100.7:/nfs/k8s/closed"
               f" && exportfs -o rw,secure,no_subtree_check {NETWORK}:/nfs/k8s/secure")  # fmt: skip
    doctor.pod("closed", nfs("/nfs/k8s/closed"), nodeName="node1")
    doctor.pod("missing", nfs("/nfs/k8s/dpv/nowhere"), nodeName="node1")
    doctor.pod("away", nfs("/nfs/k8s/dpv", NOBODY), nodeName="node1")
    doctor.pod("helper", nfs("/nfs/k8s/dpv"), nodeName="node2")
    # A connection of its own: mounts of one NFSv4 version share that of the first one, whatever its port.
    port = doctor.volume("port", "/nfs/k8s/secure", ["noresvport", "nfsvers=4.1"])
    doctor.pod("port", port, nodeName="node1")
    doctor.pod("version", doctor.volume("version", "/nfs/k8s/dpv", ["nfsvers=3"]), nodeName="node1")
    doctor.pod("option", doctor.volume("option", "/nfs/k8s/dpv", ["hrad"]), nodeName="node1")
    for name in ("closed", "missing", "helper", "port", "version", "option", "away"):
        # A server that is not there is waited for by mount.nfs and by kubelet, two minutes and more.
        doctor.wait(f"kubelet warns about {name}", partial(doctor.warned, name), 400)
    causes = doctor.causes(namespace="default")
    assert causes == {
        "closed": ("mount-access-denied", "certain"),
        "missing": ("mount-no-such-directory", "certain"),
        "helper": ("mount-helper-missing", "certain"),
        "port": ("mount-illegal-port", "certain"),
        "version": ("mount-protocol-not-supported", "certain"),
        "option": ("mount-option-refused", "certain"),
        # No node has a mount of it, so nobody has asked it.
        "away": ("mount-server-unreachable", "probable"),
    }


def test_what_the_api_alone_can_tell_of_mounts_is_probable(doctor: Doctor) -> None:
    doctor.pod("missing", nfs("/nfs/k8s/dpv/nowhere"), nodeName="node1")
    doctor.wait("kubelet warns", lambda: doctor.warned("missing"))
    # Hosts that cannot be reached are named, and are no failure.
    found, done = doctor.run(namespace="default", pod="missing")
    assert [(one["cause"], one["certainty"]) for one in found] == [("mount-no-such-directory", "certain")]
    unheard = ["-eansible_port=1", "-eansible_ssh_retries=0"]
    done = play("clusterkit.storage.diagnose", *unheard, "-ediagnose_namespace=default")
    assert done.status == 0, done.output[-3000:]
    assert "(probable; check on 192.168.77.11: ls -ld /nfs/k8s/dpv/nowhere" in done.words
    assert "Not asked: server1:" in done.words
    assert "Not asked: node1:" in done.words


def test_users_that_may_not_write(restored: Lab, doctor: Doctor) -> None:
    restored.guest("server1").ssh(
        "for d in squashed plain reads; do mkdir -p /nfs/k8s/$d; chmod 0755 /nfs/k8s/$d; done"
        f" && exportfs -o rw,root_squash,insecure,no_subtree_check {NETWORK}:/nfs/k8s/squashed"
        f" && exportfs -o rw,no_root_squash,insecure,no_subtree_check {NETWORK}:/nfs/k8s/plain"
        f" && exportfs -o ro,insecure,no_subtree_check {NETWORK}:/nfs/k8s/reads"
    )
    write = "touch /mnt/file"
    doctor.pod("root", nfs("/nfs/k8s/squashed"), write, securityContext={"runAsUser": 0})
    doctor.pod("user", nfs("/nfs/k8s/plain"), write, securityContext={"runAsUser": 1000})
    doctor.pod("image", nfs("/nfs/k8s/squashed"), write)
    doctor.pod("reads", nfs("/nfs/k8s/reads"), write)
    doctor.pod("works", nfs("/nfs/k8s/plain"), write, securityContext={"runAsUser": 0})
    for name in ("root", "user", "image", "reads", "works"):
        doctor.wait(f"{name} has ended", partial(doctor.has_ended, name))
    found, _done = doctor.run(namespace="default")
    assert {one["object"]["name"]: (one["cause"], one["certainty"]) for one in found} == {
        "root": ("permission-denied", "certain"),
        "user": ("permission-denied", "certain"),
        # Only its image knows as whom it runs.
        "image": ("permission-denied", "probable"),
        "reads": ("read-only-file-system", "certain"),
    }
    sentences = {one["object"]["name"]: one["sentence"] for one in found}
    assert "uid 0, uid 65534 there, may not write" in sentences["root"]
    assert "uid 1000 may not write" in sentences["user"]
    assert "owner 0:0, mode 0755" in sentences["user"]


def test_a_pod_that_cannot_end_since_its_server_is_away(restored: Lab, doctor: Doctor) -> None:
    script = "while :; do date > /mnt/.stuck; sleep 1; done"
    # Without a grace period the API forgets a pod before its node has ended it.
    doctor.pod("stuck", nfs("/nfs/k8s/dpv"), script, nodeName="node1", terminationGracePeriodSeconds=5)
    doctor.wait("the pod writes", lambda: doctor.phase("stuck") == "Running")
    server = restored.guest("server1")
    server.freeze()
    try:
        doctor.request("DELETE", f"{PODS}/stuck")
        # From when on a pod is overdue, and mounts of a soft kind have given up.
        time.sleep(45)
        found, done = doctor.run(namespace="default", pod="stuck")
        assert [(one["cause"], one["certainty"]) for one in found] == [("pod-terminating-dead-mount", "certain")]
        assert "on node1 is unreachable" in found[0]["sentence"]
        assert "Not asked: server1:" in done.words
    finally:
        server.thaw()


def test_a_recycler_without_its_image(restored: Lab, doctor: Doctor) -> None:
    for name in ("node1", "node2"):
        restored.guest(name).ssh(
            "/opt/lab/bin/ctr -n k8s.io images ls -q | grep debian-base | xargs -r /opt/lab/bin/ctr -n k8s.io images rm"
        )
    doctor.request("DELETE", f"{CLAIMS}/nfs-pvc002")
    doctor.wait(
        "the recycler gets no image", lambda: doctor.causes().get("nfs-spv002") == ("recycler-image", "certain"), 300
    )


def test_provisioners_that_do_not_work(doctor: Doctor) -> None:
    """Crash-looping, without image, without rights by its own log, and selfLink by its log."""
    (deployment,) = [
        one
        for one in doctor.request("GET", "/apis/apps/v1/deployments")["items"]
        if one["metadata"]["name"] == "nfs-client-provisioner"
    ]
    path = f"{DEPLOYMENTS}/{deployment['metadata']['namespace']}/deployments/nfs-client-provisioner"
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    spec = {"accessModes": ["ReadWriteMany"], "storageClassName": CLASS, "resources": {"requests": {"storage": "1Mi"}}}

    def template(**more: Any) -> dict[str, Any]:
        return {"spec": {"template": {"spec": {"containers": [{**container, **more}]}}}}

    def becomes(cause: str, certainty: str = "certain") -> None:
        wanted = (cause, certainty)
        doctor.wait(f"{wanted} is said", lambda: doctor.causes(namespace="default").get("waits") == wanted, 400)

    def images() -> set[str]:
        pods = doctor.request("GET", f"/api/v1/namespaces/{deployment['metadata']['namespace']}/pods")["items"]
        return {pod["spec"]["containers"][0]["image"] for pod in pods}

    doctor.patch(path, template(image=BUSYBOX, command=["sh", "-c", "echo the share is not there; exit 1"]))
    doctor.wait("the provisioner that works is gone", lambda: images() == {BUSYBOX})
    doctor.request("POST", CLAIMS, {"metadata": {"name": "waits"}, "spec": spec})
    becomes("provisioner-crash-looping")
    doctor.patch(path, template(image="registry.invalid/nfs-subdir-external-provisioner:v4.0.2"))
    becomes("provisioner-image-not-pulled")
    # The words of the old provisioner (S18), from a log of a real pod; its image cannot be had any more.
    words = "E1019 controller.go:1004] unexpected error getting claim reference: selfLink was empty"
    doctor.patch(path, template(image=BUSYBOX, command=["sh", "-c", f"echo '{words}'; sleep 3600"]))
    becomes("provisioner-selflink")
    doctor.patch(path, template())
    doctor.wait("the claim is bound", lambda: doctor.request("GET", f"{CLAIMS}/waits")["status"]["phase"] == "Bound")
    # Its rights are taken, then it is asked again.
    roles = doctor.request("GET", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings")["items"]
    account = deployment["spec"]["template"]["spec"]["serviceAccountName"]
    for role in roles:
        if any(one["name"] == account for one in role.get("subjects") or []):
            doctor.request(
                "DELETE", f"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/{role['metadata']['name']}"
            )
    doctor.request("DELETE", f"{CLAIMS}/waits")
    doctor.request("POST", CLAIMS, {"metadata": {"name": "refused"}, "spec": spec})
    doctor.wait(
        "the missing rights are named",
        lambda: doctor.causes(namespace="default").get("refused") == ("provisioner-without-rights", "certain"),
        300,
    )
