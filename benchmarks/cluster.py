# SPDX-License-Identifier: GPL-3.0-or-later
"""The role k8s_storage beside kubernetes.core.k8s: tasks, module executions and time for static volumes and claims.

    make collection && .work/venv/bin/python -m benchmarks.cluster [NUMBER OF VOLUMES]

The same volumes, each with its claim, as a ServiceAccount on a control plane of its own, in one run; two of them first,
since numbers of tasks and modules must not grow. The role also reads the cluster and checks its inputs; the loop and
the list only send. Counts are exact; seconds are wall times of this machine: only their ratios mean something.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from tests.integration.cluster.cluster import BIN, ROOT, Cluster, environment, write_kubeconfig
from tests.integration.cluster.conftest import own_cluster
from tests.integration.cluster.storage_role import static

EVERYTHING = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]


def manifests(given: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the objects that the role makes of its variables."""
    labels = {"app.kubernetes.io/managed-by": "clusterkit.storage"}
    volumes = [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": one["name"], "labels": labels},
            "spec": {
                "capacity": {"storage": one["capacity"]},
                "accessModes": ["ReadWriteMany"],
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": one["storage_class"],
                "nfs": {"server": one["server"], "path": one["path"]},
            },
        }
        for one in given["volumes"]
    ]
    claims = [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": one["name"], "namespace": "default", "labels": labels},
            "spec": {
                "accessModes": ["ReadWriteMany"],
                "storageClassName": one["storage_class"],
                "volumeName": one["volume_name"],
                "resources": {"requests": {"storage": one["request"]}},
            },
        }
        for one in given["claims"]
    ]
    return volumes + claims


def ways(count: int) -> dict[str, dict[str, Any]]:
    """Return the plays."""
    given = static(count)
    objects = {"objects": manifests(given)}
    each = {"name": "Make", "kubernetes.core.k8s": {"definition": "{{ item }}"}, "loop": "{{ objects }}"}
    whole = {"name": "Make", "kubernetes.core.k8s": {"definition": "{{ objects }}"}}
    return {
        "clusterkit.storage.k8s_storage": {
            "roles": ["clusterkit.storage.k8s_storage"],
            "vars": {f"k8s_storage_{name}": value for name, value in given.items()},
        },
        "loop of kubernetes.core.k8s": {"tasks": [each], "vars": objects},
        "kubernetes.core.k8s, one list": {"tasks": [whole], "vars": objects},
    }


class Bench:
    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        config = write_kubeconfig(folder / "config", cluster.service_account("bench", EVERYTHING))
        groups = ("kubernetes.core.k8s", "clusterkit.storage.k8s")
        self.defaults = {f"group/{group}": {"kubeconfig": config} for group in groups}

    def play(self, content: dict[str, Any], *, changes: bool) -> str:
        """Run a play; return its figures."""
        file, counted = self.folder / "play.yml", self.folder / "modules"
        common = {"hosts": "localhost", "gather_facts": False, "module_defaults": self.defaults}
        file.write_text(yaml.safe_dump([{"name": "Storage", **common, **content}]))
        variables = {
            **environment(),
            "ANSIBLE_CALLBACKS_ENABLED": "count_modules",
            "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "tests/callback_plugins"),
            "COUNT_MODULES_FILE": str(counted),
        }
        argv = [str(BIN / "ansible-playbook"), "-i", "localhost,", "-c", "local", str(file)]
        began = time.perf_counter()
        done = subprocess.run(argv, env=variables, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - began
        assert done.returncode == 0, done.stdout[-3000:]
        assert ("changed=0 " not in done.stdout) == changes, done.stdout[-3000:]
        tasks = len(re.findall(r"^TASK ", done.stdout, re.MULTILINE))
        return f"{tasks:6} {len(counted.read_text().splitlines()):7} {seconds:7.1f}"

    def table(self, count: int) -> None:
        what = f"{count} volumes and claims"
        print(f"\n{what:32} changed: tasks modules seconds   unchanged: tasks modules seconds")
        for way, content in ways(count).items():
            self.cluster.clear()
            first = self.play(content, changes=True)
            for name in (f"static-{number:03d}" for number in range(count)):
                self.cluster.wait_bound(name)
            print(f"{way:32} {first:>30} {self.play(content, changes=False):>34}", flush=True)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name)
        with own_cluster(folder / "plane") as cluster:
            bench = Bench(cluster, folder)
            print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}")
            for number in (2, count):
                bench.table(number)


if __name__ == "__main__":
    main()
