# SPDX-License-Identifier: GPL-3.0-or-later
"""Ten pods on two nodes write and fsync, their server goes away, half of them are deleted.

Those that share their superblock with no running pod must end while the server is away; the others when it is back.
Running pods see no error, and every line whose fsync returned is on the server.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.lifecycle import Lab
from lab.settings import LabError
from tests.integration import writers

ROOT = Path(__file__).resolve().parents[3]
LOG = logging.getLogger(__name__)
SERVER = "192.168.77.11"
FOLDER = "/nfs/k8s/outage"
# Mounts of one export share a superblock if their options are the same; rsize=131072 is what mounts get here that ask
# for nothing. These make one for pods that all end, and one for pods of which some go on.
ALONE, SHARED = ["hard", "nfsvers=4.2", "rsize=32768"], ["hard", "nfsvers=4.2", "rsize=65536"]


@dataclass(frozen=True)
class Pod:
    name: str
    node: str
    options: list[str]
    ends: bool


PODS = [
    Pod("a1", "node1", ALONE, True),
    Pod("a2", "node1", ALONE, True),
    Pod("a3", "node2", ALONE, True),
    Pod("s1", "node1", SHARED, True),
    Pod("s2", "node2", SHARED, True),
    *(Pod(f"r{number}", "node1" if number < 3 else "node2", SHARED, False) for number in range(1, 6)),
]
ENDING_ALONE = {pod.name for pod in PODS if pod.ends and pod.options is ALONE}
ENDING_SHARED = {pod.name for pod in PODS if pod.ends and pod.options is SHARED}
RUNNING = {pod.name for pod in PODS if not pod.ends}


def objects(pod: Pod) -> list[tuple[str, dict[str, Any]]]:
    name, namespace = f"outage-{pod.name}", "/api/v1/namespaces/default"
    metadata = {"name": name, "labels": {"drill": "outage"}}
    size, modes = {"storage": "1Gi"}, ["ReadWriteMany"]
    volume = {
        "capacity": size,
        "accessModes": modes,
        "persistentVolumeReclaimPolicy": "Retain",
        "storageClassName": "",
        "mountOptions": pod.options,
        "nfs": {"server": SERVER, "path": f"{FOLDER}/{pod.name}"},
        "claimRef": {"namespace": "default", "name": name},
    }
    claim = {
        "accessModes": modes,
        "storageClassName": "",
        "volumeName": name,
        "resources": {"requests": size},
    }
    return [
        ("/api/v1/persistentvolumes", {"metadata": metadata, "spec": volume}),
        (f"{namespace}/persistentvolumeclaims", {"metadata": metadata, "spec": claim}),
        (f"{namespace}/pods", {"metadata": metadata, "spec": writers.spec(pod.name, claim=name, node=pod.node)}),
    ]


class Drill:
    def __init__(self) -> None:
        self.lab = Lab()
        self.plane = self.lab.control_plane
        self.server = self.lab.guest("server1")
        self.nodes = [self.lab.guest("node1"), self.lab.guest("node2")]

    def there(self) -> dict[str, dict[str, Any]]:
        found = self.plane.request("GET", "/api/v1/namespaces/default/pods?labelSelector=drill%3Doutage")["items"]
        return {one["metadata"]["name"].removeprefix("outage-"): one for one in found}

    def acknowledged(self) -> dict[str, list[str]]:
        return writers.acknowledged(self.nodes)

    def clear(self) -> None:
        for kind in ("namespaces/default/pods", "namespaces/default/persistentvolumeclaims", "persistentvolumes"):
            self.plane.request("DELETE", f"/api/v1/{kind}?labelSelector=drill%3Doutage")
        until(lambda: not self.there(), 180, "the pods of an earlier drill are gone")
        writers.forget(self.nodes)
        self.server.ssh(f"rm -rf {FOLDER}/*; mkdir -p {' '.join(f'{FOLDER}/{pod.name}' for pod in PODS)}")

    def start(self) -> None:
        self.clear()
        for pod in PODS:
            for path, body in objects(pod):
                self.plane.request("POST", path, body)
        until(
            lambda: sum(1 for numbers in self.acknowledged().values() if len(numbers) > 3) == len(PODS),
            600,
            "all pods write",
        )

    def delete_half(self) -> None:
        for pod in PODS:
            if pod.ends:
                self.plane.request("DELETE", f"/api/v1/namespaces/default/pods/outage-{pod.name}")

    def recover(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        env = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "lab/ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".work/collections"),
            "ANSIBLE_NOCOLOR": "1",
        }
        argv = [str(ROOT / ".work/venv/bin/ansible-playbook"), "-i", str(ROOT / ".work/inventory")]
        argv += ["clusterkit.storage.recover", "-e", f"recover_plan_dest={ROOT}/.work/recover-plan.json", *arguments]
        return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=300, check=False)


def until(true: Callable[[], Any], patience: float, what: str) -> float:
    """Seconds until it was true."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < patience, f"in vain waited {patience} s until {what}"
        time.sleep(1)
    return time.monotonic() - began


@pytest.fixture
def drill() -> Iterator[Drill]:
    made = Drill()
    made.start()
    yield made
    if made.server.run_state == "paused":
        made.server.thaw()
        made.server.set_clock()
    made.clear()


def words(text: str) -> str:
    return " ".join(text.split())


def away(drill: Drill) -> None:
    """What must hold while the server is away; half of the pods have been deleted."""
    until(lambda: all(drill.there()[pod.name]["metadata"].get("deletionTimestamp") for pod in PODS if pod.ends), 30, "")
    time.sleep(8)
    shown = drill.recover()
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "Nothing was done" in shown.stdout
    assert set(drill.there()) == {pod.name for pod in PODS}, "kubelet removes none of them alone"
    began = time.monotonic()
    done = drill.recover("-e", "recover_confirm=true", "-e", "recover_wait=45")
    took = time.monotonic() - began
    LOG.info("recover took %.1f s", took)
    assert done.returncode == 0, done.stdout + done.stderr
    left = set(drill.there())
    assert not left & ENDING_ALONE, done.stdout
    assert took < 60
    assert left == ENDING_SHARED | RUNNING
    for name in ENDING_SHARED:
        assert re.search(
            rf"shared with [^;]*pod default/outage-r\d.* it is mounted for pod default/outage-{name}, Terminating",
            words(done.stdout),
        ), done.stdout


def back(drill: Drill, before: dict[str, list[str]]) -> None:
    """What must hold once the server is back."""
    took = until(lambda: not set(drill.there()) & ENDING_SHARED, 120, "the pods that shared a superblock are gone")
    LOG.info("the pods that shared a superblock were gone %.0f s after the server was back", took)
    until(
        lambda: all(len(drill.acknowledged()[name]) > len(before[name]) + 2 for name in RUNNING),
        150,
        "running pods write again",
    )
    assert set(drill.there()) == RUNNING
    acknowledged = drill.acknowledged()
    assert not {f"{name}.errors" for name in RUNNING} & set(acknowledged), "a running pod has seen an error"
    writers.assert_nothing_lost(
        acknowledged, writers.written(drill.server, {pod.name: f"{FOLDER}/{pod.name}" for pod in PODS})
    )
    shown = drill.recover()
    assert shown.returncode == 0, shown.stdout
    assert "0 to change" in shown.stdout, shown.stdout
    assert "stale" not in shown.stdout, shown.stdout


def test_server_is_frozen(drill: Drill, pytestconfig: pytest.Config) -> None:
    drill.server.freeze()
    frozen = time.monotonic()
    before = drill.acknowledged()
    drill.delete_half()
    away(drill)
    if pytestconfig.getoption("--long"):
        time.sleep(max(0, 180 - (time.monotonic() - frozen)))
    LOG.info("the server was frozen for %.0f s", time.monotonic() - frozen)
    drill.server.thaw()
    back(drill, before)
    drill.server.set_clock()


@pytest.mark.long
def test_power_of_the_server_is_cut(drill: Drill) -> None:
    boot = drill.server.ssh("cat /proc/sys/kernel/random/boot_id")
    drill.server.reset()
    # A machine that boots in no time would leave nothing to see: it is held before its server starts.
    drill.server.freeze()
    before = drill.acknowledged()
    drill.delete_half()
    away(drill)
    drill.server.thaw()

    def serves() -> bool:
        try:
            return drill.server.ssh("cat /proc/sys/kernel/random/boot_id", timeout=60) != boot
        except LabError:
            return False

    until(serves, 400, "the server has booted")
    until(lambda: ":2049" in drill.server.ssh("ss -Hltn 'sport = 2049'"), 120, "its NFS server runs")
    back(drill, before)


@pytest.mark.long
def test_example_of_a_directory_of_the_host() -> None:
    """docs/outages.md: kubelet has nothing to unmount, but a process that writes waits all the same."""
    drill, path = Drill(), "/api/v1/namespaces/default/pods"
    (example,) = re.findall(
        r"```yaml\n(apiVersion: v1\nkind: Pod\n.*?)```", (ROOT / "docs/outages.md").read_text(), re.DOTALL
    )
    body = yaml.safe_load(example)
    name = body["metadata"]["name"]
    body["metadata"]["labels"] = {"drill": "outage"}
    body["spec"] |= {"nodeName": "node1", "terminationGracePeriodSeconds": 5}
    drill.clear()
    node = drill.nodes[0]
    node.ssh(
        "mkdir -p /data/k8s/data; mountpoint -q /data/k8s/data || "
        f"mount -t nfs -o hard,nfsvers=4.1 {SERVER}:{FOLDER} /data/k8s/data"
    )
    lines = f"cat {FOLDER}/{name} /nfs/k8s/data/{name} 2>/dev/null | wc -l"
    drill.plane.request("POST", path, body)
    until(lambda: int(drill.server.ssh(lines)) > 3, 180, "the pod of the example writes")
    drill.server.freeze()
    try:
        time.sleep(10)
        drill.plane.request("DELETE", f"{path}/{name}")
        time.sleep(40)
        LOG.info("40 s after its deletion the pod is %s", "there" if drill.there() else "gone")
        shown = drill.recover("-e", "recover_confirm=true")
        assert shown.returncode == 0, shown.stdout + shown.stderr
        assert "waits for the server" in words(shown.stdout), shown.stdout
        assert "/data/k8s/data" in node.ssh("cut -d' ' -f5 /proc/self/mountinfo"), "the host keeps its mount"
    finally:
        drill.server.thaw()
        drill.server.set_clock()
    until(lambda: not drill.there(), 120, "the pod is gone")
    assert int(node.ssh(f"wc -l < /data/k8s/data/{name}")) > 3, "the host's mount goes on"
