# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster whose volumes lie on this machine, for the playbooks of backup and restore."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from ..integration.cluster.cluster import BIN, Cluster, environment
from .world import PASSWORD, mount

BACKUP = "clusterkit.storage.backup"
DEPLOYMENTS = "/apis/apps/v1/namespaces/shop/deployments"
CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
STOPPED = "storage.clusterkit/stopped"


class Site:
    """A cluster whose volumes lie on a disk of this machine, under the names of two servers."""

    def __init__(self, cluster: Cluster, folder: Path, engine: str) -> None:
        self.cluster = cluster
        self.folder = folder
        self.engine = engine
        self.shares = {name: folder / "disk" / name for name in ("server", "second")}
        self.volume = self.shares["server"] / "pv-odd"
        self.volume.mkdir(parents=True)
        self.shares["second"].mkdir()
        self.hosts(server={"ansible_connection": "local"})
        self.servers = [
            {
                "name": name,
                "host": name,
                "addresses": [address],
                "shares": [{"server_path": str(self.shares[name]), "client_path": "/nfs/k8s"}],
            }
            for name, address in (("server", "192.0.2.10"), ("second", "192.0.2.11"))
        ]

    def hosts(self, **hosts: dict[str, Any]) -> None:
        (self.folder / "hosts.yml").write_text(yaml.safe_dump({"nfs_servers": {"hosts": hosts}}))

    @property
    def repository(self) -> Path:
        return self.folder / "disk/backups"

    def variables(self, **more: Any) -> dict[str, Any]:
        own = {"backup_password": PASSWORD} if self.engine == "restic" else {}
        return {
            "storage_servers": self.servers,
            "backup_engine": self.engine,
            "backup_repository": str(self.repository),
            "backup_progress_file": str(self.folder / "progress.log"),
            "restore_plan_dest": str(self.folder / "plan.json"),
            **own,
            **more,
        }

    def play(self, playbook: str, *options: str, **more: Any) -> tuple[int, str]:
        """Status, and the output with all white space made equal, since Ansible folds long messages."""
        done = self.cluster.play(playbook, "-i", str(self.folder / "hosts.yml"), *options, **self.variables(**more))
        assert PASSWORD not in done.stdout + done.stderr
        return done.returncode, " ".join((done.stdout + done.stderr).split())

    def good(self, playbook: str, *options: str, **more: Any) -> str:
        status, words = self.play(playbook, *options, **more)
        assert status == 0, words[-6000:]
        return words

    def make(self, policy: str = "Retain") -> None:
        """Namespace, class, volume and claim."""
        self.cluster.namespace("shop")
        body = {"metadata": {"name": "kept"}, "provisioner": "example.com/nfs", "parameters": {"a": "b"}}
        assert self.cluster.request("POST", CLASSES, body)[0] in (201, 409)
        self.cluster.make_volume("pv-odd", storage_class="kept", policy=policy)
        self.cluster.make_claim("data", "shop", storage_class="kept", volume_name="pv-odd")
        self.wait_bound("data", "shop")

    def wait_bound(self, name: str, namespace: str) -> None:
        self.cluster.wait(lambda: self.cluster.claim(name, namespace)["status"].get("phase") == "Bound")

    def _lacks(self, space: str) -> bool:
        return bool(self.cluster.request("GET", f"/api/v1/namespaces/{space}")[0] == 404)

    def remove(self, *spaces: str) -> None:
        """Empty the cluster: as after a loss of etcd."""
        for name in spaces:
            self.cluster.request("DELETE", f"/api/v1/namespaces/{name}")
        for name in spaces:
            self.cluster.wait(partial(self._lacks, name))
        self.cluster.clear()
        self.cluster.request("DELETE", f"{CLASSES}/kept")

    def deployment(self, replicas: int) -> None:
        container = {"name": "c", "image": "docker.io/library/busybox:1.36"}
        volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
        template = {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [container], "volumes": volumes, "automountServiceAccountToken": False},
        }
        spec = {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template}
        self.cluster.done("POST", DEPLOYMENTS, {"metadata": {"name": "web"}, "spec": spec})
        self.cluster.wait(lambda: len(self.pods()) == replicas)

    def pods(self) -> list[str]:
        return [one["metadata"]["name"] for one in self.cluster.done("GET", "/api/v1/namespaces/shop/pods")["items"]]

    def replicas(self) -> tuple[int, str | None]:
        found = self.cluster.done("GET", f"{DEPLOYMENTS}/web")
        return found["spec"]["replicas"], found["metadata"].get("annotations", {}).get(STOPPED)

    def kill_backup(self, **given: Any) -> None:
        """Begin a backup of much that was written anew, and kill it while it copies."""
        (self.volume / "large").write_bytes(os.urandom(4 << 20))
        slow = self.variables(storage_kubeconfig=self.cluster.kubeconfig, backup_bandwidth=64, **given)
        argv = [str(BIN / "ansible-playbook"), BACKUP, "-i", str(self.folder / "hosts.yml"), "-e", json.dumps(slow)]
        child = subprocess.Popen(argv, env=environment(), stdout=subprocess.DEVNULL, start_new_session=True)
        folder = self.repository / "shop/pv-odd/.partial"
        self.cluster.wait(folder.exists, 300)
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        # The copying program goes on for itself, and keeps others off until it ends.
        end_copies(folder)


def on_own_disk(cluster: Cluster, folder: Path, engine: str) -> Iterator[Site]:
    """Volumes and backups have a file system of their own; afterwards nothing is left."""
    (folder / "disk").mkdir()
    mount("-t", "tmpfs", "-o", "size=2g,mode=0755", "tmpfs", folder / "disk")
    site = Site(cluster, folder, engine)
    yield site
    site.remove("shop", "copy")
    subprocess.run(["umount", "--lazy", str(folder / "disk")], check=True)


def end_copies(folder: Path) -> None:
    """End the module and the copying program that the killed run has left, which write to this folder."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        left = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if str(folder.parents[2]).encode() in words and b"rsync" in words.split(b"\0")[0]:
                left.append(int(process.name))
        if not left:
            return
        for number in left:
            os.kill(number, signal.SIGKILL)
        time.sleep(0.2)
    raise AssertionError("the copying program does not end")
