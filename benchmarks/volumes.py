# SPDX-License-Identifier: GPL-3.0-or-later
"""Thousands of volumes: pv_reclaim beside what a user would run instead, as a ServiceAccount, in one run.

    make collection && .work/venv/bin/python -m benchmarks.volumes [1000] [10000]

Starts a control plane of its own on the loopback. The volumes are Available; every change sets the reclaim policy of
all of them to the other of Retain and Delete. Times are wall times of this machine: only their ratios mean something.
"""

from __future__ import annotations

import http.client
import json
import os
import platform
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import yaml

from tests.integration.cluster.cluster import (
    BIN,
    RUN_MODULE,
    Cluster,
    environment,
    write_kubeconfig,
)
from tests.integration.cluster.conftest import own_cluster

ROOT = Path(__file__).resolve().parents[1]

THREADS = 16
# ru_maxrss of a child begins with what its parent had.
PEAK = """
import atexit
atexit.register(lambda: open({file!r}, "w").write(
    next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))))
"""
SAMPLE = 30
RULES = [
    {"apiGroups": [""], "resources": ["persistentvolumes"], "verbs": ["get", "list", "patch"]},
    {"apiGroups": [""], "resources": ["namespaces", "persistentvolumeclaims"], "verbs": ["get", "list"]},
]


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = function()
    return time.perf_counter() - began, result


class Bench:
    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        account = cluster.service_account("bench", RULES)
        self.config = write_kubeconfig(folder / "config", account)
        self.token = account["users"][0]["user"]["token"]
        self.context = ssl.create_default_context(cafile=str(cluster.plane.folder / "pki/ca.crt"))
        self.policy = "Retain"
        self.names: list[str] = []

    def other(self) -> str:
        self.policy = "Delete" if self.policy == "Retain" else "Retain"
        return self.policy

    def connection(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("127.0.0.1", self.cluster.port, context=self.context)

    def check(self) -> None:
        found = {one["spec"]["persistentVolumeReclaimPolicy"] for one in self.cluster.volumes().values()}
        assert found == {self.policy}, (found, self.policy)

    # The limits ------------------------------------------------------------------------------------

    def raw_patches(self) -> float:
        body = json.dumps({"spec": {"persistentVolumeReclaimPolicy": self.other()}})
        todo: SimpleQueue[str] = SimpleQueue()
        for name in self.names:
            todo.put(name)
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/merge-patch+json"}

        def work() -> None:
            connection = self.connection()
            while True:
                try:
                    name = todo.get_nowait()
                except Empty:
                    return
                connection.request("PATCH", f"/api/v1/persistentvolumes/{name}", body, headers)
                answer = connection.getresponse()
                answer.read()
                assert answer.status == 200

        threads = [threading.Thread(target=work) for _ in range(THREADS)]

        def run() -> None:
            for one in threads:
                one.start()
            for one in threads:
                one.join()

        return timed(run)[0]

    def raw_list(self) -> float:
        def run() -> None:
            connection, following = self.connection(), ""
            while True:
                path = "/api/v1/persistentvolumes?limit=500" + (f"&continue={following}" if following else "")
                connection.request("GET", path, headers={"Authorization": f"Bearer {self.token}"})
                following = json.loads(connection.getresponse().read())["metadata"].get("continue", "")
                if not following:
                    return

        return timed(run)[0]

    # Ansible ---------------------------------------------------------------------------------------

    def play(self, tasks: list[dict[str, Any]]) -> float:
        file = self.folder / "play.yml"
        file.write_text(yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
        argv = [str(BIN / "ansible-playbook"), "-i", "localhost,", "-c", "local", str(file)]
        seconds, done = timed(
            lambda: subprocess.run(argv, env=environment(), capture_output=True, text=True, check=False)
        )
        assert done.returncode == 0, done.stdout[-3000:]
        return seconds

    def reclaim(self, policy: str) -> dict[str, Any]:
        given = {"kubeconfig": self.config, "policy": policy, "allow_future_deletion": True}
        return {"clusterkit.storage.pv_reclaim": {**given, "selection": {"names": ["pv-*"]}}}

    def definitions(self, policy: str, names: list[str]) -> list[dict[str, Any]]:
        return [
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": name},
                "spec": {"persistentVolumeReclaimPolicy": policy},
            }
            for name in names
        ]

    def list_task(self, policy: str) -> float:
        given = {"kubeconfig": self.config, "state": "patched", "definition": self.definitions(policy, self.names)}
        return self.play([{"kubernetes.core.k8s": given}])

    def loop_task(self, policy: str, count: int) -> float:
        given = {"kubeconfig": self.config, "state": "patched", "definition": "{{ item }}"}
        return self.play([{"kubernetes.core.k8s": given, "loop": self.definitions(policy, self.names[:count])}])

    def module(self, policy: str) -> tuple[float, float]:
        """Seconds and peak memory (MB) of the module as a process of its own."""
        given = {**self.reclaim(policy)["clusterkit.storage.pv_reclaim"], "_ansible_check_mode": False}
        code = RUN_MODULE.format(name="pv_reclaim", arguments=json.dumps({"ANSIBLE_MODULE_ARGS": given}))
        peak = self.folder / "peak"
        argv = [str(BIN / "python"), "-c", PEAK.format(file=str(peak)) + code]
        variables = environment() | {"PYTHONPATH": str(ROOT / ".work/collections")}
        with (self.folder / "output").open("w") as output:
            began = time.perf_counter()
            done = subprocess.run(argv, env=variables, stdout=output, stderr=subprocess.STDOUT, check=False)
            seconds = time.perf_counter() - began
        assert done.returncode == 0, (self.folder / "output").read_text()[-3000:]
        return seconds, int(peak.read_text().split()[1]) / 1024

    # kubectl ---------------------------------------------------------------------------------------

    def kubectl(self, policy: str, names: list[str]) -> float:
        program = str(self.cluster.plane.kubernetes / "kubectl")
        patch = json.dumps({"spec": {"persistentVolumeReclaimPolicy": policy}})
        argv = [program, "--kubeconfig", self.config, "patch", "pv", *names, "--type=merge", "-p", patch]
        seconds, done = timed(lambda: subprocess.run(argv, capture_output=True, text=True, check=False))
        assert done.returncode == 0, done.stderr
        return seconds

    # One table -------------------------------------------------------------------------------------

    def fill(self, count: int) -> None:
        self.cluster.clear()
        self.policy = "Retain"
        self.names = [f"pv-{number:05d}" for number in range(count)]
        self.cluster.many(self.cluster.make_volume, self.names)
        self.cluster.wait(
            lambda: all(one["status"].get("phase") == "Available" for one in self.cluster.volumes().values()), 300
        )

    def table(self, count: int, everything: bool) -> None:
        self.fill(count)
        # In turn, since other work on the machine comes and goes.
        patches, lists, changes, sames = [], [], [], []
        for _ in range(3):
            patches.append(self.raw_patches())
            self.check()
            changes.append(self.module(self.other()))
            self.check()
            lists.append(self.raw_list())
            sames.append(self.module(self.policy))
        limit, plain_list = statistics.median(patches), statistics.median(lists)
        changed_module, changed_memory = statistics.median(one[0] for one in changes), max(one[1] for one in changes)
        same_module, same_memory = statistics.median(one[0] for one in sames), max(one[1] for one in sames)
        empty = statistics.median(self.play([{"ansible.builtin.meta": "noop"}]) for _ in range(3))
        imports = "import ansible_collections.clusterkit.storage.plugins.modules.pv_reclaim"
        variables = environment() | {"PYTHONPATH": str(ROOT / ".work/collections")}
        argv = [str(BIN / "python"), "-c", imports]
        imported = statistics.median(
            timed(lambda: subprocess.run(argv, env=variables, check=True))[0] for _ in range(3)
        )
        changed = statistics.median(self.play([self.reclaim(self.other())]) for _ in range(3))
        self.check()
        same = statistics.median(self.play([self.reclaim(self.policy)]) for _ in range(3))
        # What any run costs: controller, transfer of the module, interpreter, import, connection.
        one = self.reclaim(self.policy)
        one["clusterkit.storage.pv_reclaim"]["volumes"] = self.names[:1]
        del one["clusterkit.storage.pv_reclaim"]["selection"]
        start = statistics.median(self.play([one]) for _ in range(3))
        rows = [
            ("limit: raw HTTPS, 16 connections, patches only", limit, "median of 3"),
            ("raw paged LIST (limit 500)", plain_list, "median of 3"),
            ("empty playbook", empty, "median of 3"),
            ("import of the module", imported, "median of 3"),
            ("pv_reclaim of one volume, unchanged, playbook", start, "median of 3; the start-up"),
            ("pv_reclaim, changed, playbook", changed, "median of 3"),
            ("pv_reclaim, unchanged, playbook", same, "median of 3"),
            ("pv_reclaim, changed, module alone", changed_module, f"median of 3; {changed_memory:.0f} MB"),
            ("pv_reclaim, unchanged, module alone", same_module, f"median of 3; {same_memory:.0f} MB"),
        ]
        if everything:
            task = self.list_task(self.other())
            self.check()
            task_same = self.list_task(self.policy)
            once = self.loop_task(self.policy, 1)
            each = (self.loop_task(self.policy, SAMPLE) - once) / (SAMPLE - 1)
            single = statistics.mean(self.kubectl(self.policy, [name]) for name in self.names[:SAMPLE])
            many = self.kubectl(self.policy, self.names[:100])
            rows += [
                ("kubernetes.core.k8s, list, changed, playbook", task, "1 run"),
                ("kubernetes.core.k8s, list, unchanged, playbook", task_same, "1 run"),
                ("kubernetes.core.k8s in a loop", once + each * (count - 1), f"extrapolated from {SAMPLE}"),
                ("kubectl patch, a process each", single * count, f"extrapolated from {SAMPLE}"),
                ("kubectl patch, many names", many * count / 100, "extrapolated from 100"),
            ]
        print(f"\n{count} volumes")
        for what, seconds, how in rows:
            print(f"  {what:50} {seconds:9.2f} s {seconds / limit:8.1f} limits  {how}")
        print(
            f"  patch phase {(changed_module - same_module) / limit:.2f} limits; "
            f"playbook without start-up, changed {(changed - start) / limit:.2f} limits, "
            f"unchanged {(same - start) / plain_list:.2f} plain lists"
            f"; without empty playbook and import, changed {(changed - empty - imported) / limit:.2f} limits, "
            f"unchanged {(same - empty - imported) / plain_list:.2f} plain lists"
            + (f"; list task / pv_reclaim {task / changed:.1f}" if everything else "")
        )


def main() -> None:
    counts = [int(text) for text in sys.argv[1:]] or [1000, 10000]
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name)
        with own_cluster(folder / "plane") as cluster:
            bench = Bench(cluster, folder)
            print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}")
            for count in counts:
                bench.table(count, everything=count <= 1000)


if __name__ == "__main__":
    main()
